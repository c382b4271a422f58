"""Label metrics: checked and scaled, WordNet's distances counted by hand, boundaries in closed form."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from report_runs import write_digits
from typer.testing import CliRunner, Result

import robustkit as rk
from robustkit.analysis.label_metrics import boundary_distances, confusion_metric, linear_metric
from robustkit.cli import app
from robustkit.data.cifar import CIFAR10, CIFAR100
from robustkit.metric import shipped
from robustkit.records import EvalRecord
from robustkit.report.maps import draw_metric, near_together
from robustkit.wordnet import (
    WordNet,
    hierarchy,
    known_senses,
    lca_heights,
    parse_senses,
    path_lengths,
    wordnet_metric,
)

ABC = rk.LabelMetric(("a", "b", "c"), np.array([[0, 1, 2], [1, 0, 4], [2, 4, 0]]), "by hand")


def cost(metric: rk.LabelMetric, a: str, b: str) -> float:
    return float(metric.costs[metric.classes.index(a), metric.classes.index(b)])


# ---- the matrix


def test_costs_are_divided_by_the_largest_and_kept() -> None:
    np.testing.assert_array_equal(ABC.costs, [[0, 0.25, 0.5], [0.25, 0, 1], [0.5, 1, 0]])
    for scale in (5e-324, 1.7e308):
        huge = rk.LabelMetric(("a", "b"), np.array([[0, scale], [scale, 0]]))
        np.testing.assert_array_equal(huge.costs, [[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="read-only"):
        ABC.costs[0, 1] = 7


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([[0, 1], [2, 0]], "the cost of 'cat' for 'dog' is 1, but 2 the other way round"),
        ([[0, 1], [1, 3]], "the cost of 'dog' for itself is 3, not 0"),
        ([[0, -1], [-1, 0]], "the cost of 'cat' for 'dog' is -1, below 0"),
        ([[0, 1], [np.nan, 0]], "the cost of 'dog' for 'cat' is nan, not a finite number"),
        ([[0, np.inf], [np.inf, 0]], "the cost of 'cat' for 'dog' is inf"),
        ([[0, 0], [0, 0]], "every cost of the metric is 0"),
        ([[0, 1, 1]], "2 classes have costs of 1x3"),
    ],
)
def test_what_is_no_metric_is_refused_by_the_first_pair(costs: object, words: str) -> None:
    with pytest.raises(rk.BadValueError, match=words):
        rk.LabelMetric(("cat", "dog"), np.array(costs, float))


@pytest.mark.parametrize("names", [("a", "a", "b"), ("a", "", "b"), ("a", "b\nc", "d")])
def test_classes_have_names_of_their_own(names: tuple[str, ...]) -> None:
    with pytest.raises(rk.BadValueError, match="twice|no name"):
        rk.LabelMetric(names, np.ones((3, 3)) - np.eye(3))


def test_powers_keep_the_diagonal_and_what_is_free() -> None:
    np.testing.assert_array_equal(ABC.power(0), 1 - np.eye(3))
    np.testing.assert_array_equal(ABC.power(2)[0], [0, 0.0625, 0.25])
    free = rk.LabelMetric(("a", "b", "c"), np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]]))
    np.testing.assert_array_equal(free.power(0), free.costs)
    for p in (-1, np.nan, np.inf):
        with pytest.raises(rk.BadValueError, match="power"):
            ABC.power(p)


def test_classes_are_found_by_name_in_any_order() -> None:
    turned = ABC.reordered(["c", "a", "b"])
    assert all(cost(turned, x, y) == cost(ABC, x, y) for x in "abc" for y in "abc")
    np.testing.assert_array_equal(ABC.reordered(["b", "a"]).costs, [[0, 1], [1, 0]])
    with pytest.raises(rk.UnknownNameError, match="'aa'; did you mean 'a'"):
        ABC.reordered(["aa", "b", "c"])


def test_a_metric_without_names_is_in_the_order_of_the_labels() -> None:
    plain = rk.LabelMetric.parse("0,1,2\n1,0,4\n2,4,0\n")
    assert plain.classes == ("0", "1", "2")
    np.testing.assert_array_equal(plain.costs, ABC.costs)
    assert plain.reordered(["x", "y", "z"]).classes == ("x", "y", "z")
    np.testing.assert_array_equal(plain.reordered(["2", "1", "0"]).costs, plain.costs[::-1, ::-1])
    with pytest.raises(rk.UnknownNameError):
        plain.reordered(["x", "y"])


# ---- files


@st.composite
def metrics(draw: st.DrawFn) -> rk.LabelMetric:
    word = st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=8
    )
    words = word.map(str.strip).filter(lambda w: w and not w.isspace())
    names = draw(st.lists(words, min_size=2, max_size=6, unique=True))
    n = len(names)
    some = st.one_of(st.floats(1e-6, 1e6), st.integers(1, 30).map(float))
    values = draw(st.lists(some, min_size=n * n, max_size=n * n))
    upper = np.triu(np.reshape(values, (n, n)), 1)
    return rk.LabelMetric(
        tuple(names), upper + upper.T, draw(st.sampled_from(["", "x, 'y' \"z\""]))
    )


@given(metric=metrics())
def test_files_read_back_to_equal_metrics(
    metric: rk.LabelMetric, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("m") / "m.csv"
    metric.write(path)
    again = rk.LabelMetric.read(path)
    assert (again.classes, again.source) == (metric.classes, metric.source)
    np.testing.assert_array_equal(again.costs, metric.costs)


def test_whole_numbers_are_written_as_such(tmp_path: Path) -> None:
    ABC.write(tmp_path / "abc.csv")
    assert (tmp_path / "abc.csv").read_text() == "by hand,a,b,c\na,0,1,2\nb,1,0,4\nc,2,4,0\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        (",a,b\na,0,1\n", "2 columns of costs and 1 rows"),
        (",a,b\na,0,1\nc,1,0\n", "row 2 is of 'c', column 2 of 'b'"),
        (',a,b\n"x\ny",0,1\nb,1,0\n', "row 1 is of 'x y', column 1 of 'a'"),
        (",a,b\na,0\nb,1,0\n", "row 1 of 2 has 1 costs, not 2"),
        (",a,b\na,0,one\nb,1,0\n", "row 1 has 'one'"),
        ("0,1\n1,0\n2,2\n", "row 1 of 3 has 2 costs"),
        (",a,b\na,0,1\nb,2,0\n", "'a' for 'b' is 1, but 2"),
    ],
)
def test_files_that_are_no_metric_say_why_and_where(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(rk.BadValueError, match=words) as error:
        rk.find_metric(str(tmp_path / "x.csv"))
    assert "x.csv" in str(error.value)


def test_fuzzed_files_are_read_or_refused_in_a_line(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    whole = shipped()["wordnet-cifar10"].read_bytes()
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
        (tmp_path / "f.csv").write_bytes(data)
        try:
            found = rk.LabelMetric.read(tmp_path / "f.csv")
        except rk.BadValueError as error:
            assert "f.csv" in str(error) and len(str(error).splitlines()) == 1, seed
        else:
            assert found.costs.max() == 1 and (found.costs == found.costs.T).all(), seed


# ---- those that come along


@pytest.mark.parametrize("name", sorted(shipped()))
def test_what_comes_along_is_a_metric_of_its_data_set(name: str) -> None:
    metric = rk.find_metric(name)
    assert (
        metric.costs.max() == 1 and (metric.costs[~np.eye(len(metric.costs), dtype=bool)] > 0).all()
    )
    known = {"cifar10": CIFAR10.class_names, "cifar100": CIFAR100.class_names}
    known |= {"mnist": tuple("0123456789"), "tiny-imagenet": tuple(known_senses("tiny-imagenet"))}
    dataset = name.removeprefix("wordnet-").removeprefix("linear-").removesuffix("-path")
    assert metric.classes == tuple(known.get(dataset, metric.classes))
    assert shipped()[name].stat().st_size < 150_000


@pytest.mark.parametrize("name", ["wordnet-cifar10", "wordnet-cifar10-path"])
def test_cifar10_is_as_words_have_it(name: str) -> None:
    metric = rk.find_metric(name)
    assert cost(metric, "cat", "dog") < cost(metric, "cat", "truck")
    off = metric.costs[np.triu_indices(10, 1)]
    assert cost(metric, "automobile", "truck") == off.min() and (off == off.min()).sum() == 1
    vehicles = ["airplane", "automobile", "ship", "truck"]
    animals = [c for c in metric.classes if c not in vehicles]
    apart = [cost(metric, a, v) for a in animals for v in vehicles]
    within = [cost(metric, a, b) for a in animals for b in animals]
    assert min(apart) > max(within)
    if name == "wordnet-cifar10":
        assert set(apart) == {1.0}


def test_senses_of_cifar100_are_of_what_the_images_show() -> None:
    metric = rk.find_metric("wordnet-cifar100")
    for near, far in [
        ("seal otter", "seal plate"),
        ("ray shark", "ray cloud"),
        ("mouse hamster", "mouse keyboard"),
        ("crab lobster", "crab boy"),
        ("television telephone", "television tiger"),
        ("maple_tree oak_tree", "maple_tree table"),
        ("aquarium_fish trout", "aquarium_fish bottle"),
        ("turtle lizard", "turtle wardrobe"),
        ("orange apple", "orange cloud"),
    ]:
        assert cost(metric, *near.split()) < cost(metric, *far.split()), (near, far)


def test_tiny_imagenet_is_of_two_hundred_ids() -> None:
    senses = known_senses("tiny-imagenet")
    assert len(set(senses.values())) == 200
    assert senses["goldfish"] == "n01443537" and senses["crane"] == "n03126707"
    metric = rk.find_metric("wordnet-tiny-imagenet")
    assert cost(metric, "Egyptian cat", "tabby") < cost(metric, "Egyptian cat", "reel")


def test_princetons_licence_lies_beside() -> None:
    licence = next(iter(shipped().values())).parent / "WORDNET-LICENSE"
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in licence.read_text()


def test_unknown_metrics_are_named_with_the_nearest() -> None:
    with pytest.raises(rk.UnknownNameError, match="did you mean 'wordnet-cifar10'"):
        rk.find_metric("wordnet-cifar-10")


# ---- WordNet, a small one

SMALL = {
    "entity": [],
    "animal": ["entity"],
    "pet": ["animal"],
    "carnivore": ["animal"],
    "cat": ["carnivore", "pet"],
    "dog": ["pet", "carnivore"],
    "wolf": ["carnivore"],
    "vehicle": ["entity"],
    "truck": ["vehicle"],
    "machine": ["vehicle"],
    "crane": ["machine"],
    "bird": ["animal"],
    "crane bird": ["bird"],
}
"""        entity
       /        \\
    animal       vehicle
   /  |    \\     |      \\
bird pet carnivore truck machine
  |   |  X   |  \\           |
crane cat dog wolf        crane
"""


def write_wordnet(folder: Path, above: dict[str, list[str]] = SMALL) -> Path:
    """Write index.noun and data.noun as WordNet does: lines at the offsets that name them."""
    licence = "  1 This is the licence of WordNet 3.0 Copyright 2006 by Princeton.  \n"
    lines, offsets, at = {}, {}, len(licence.encode())
    for name, uppers in above.items():
        offsets[name] = at
        word = name.split()[0]
        pointers = " ".join(f"{'@i' if k else '@'} {{{u}}} n 0000" for k, u in enumerate(uppers))
        lines[name] = (
            f'{at:08d} 05 n 01 {word} 0 {len(uppers):03d} {pointers} | gloss of {name}; "an example"  \n'
        )
        at += len(lines[name].format(**dict.fromkeys(uppers, "0" * 8)))
    text = licence + "".join(
        line.format(**{u: f"{offsets[u]:08d}" for u in above[name]}) for name, line in lines.items()
    )
    (folder / "data.noun").write_text(text)
    words: dict[str, list[int]] = {}
    for name, offset in offsets.items():
        words.setdefault(name.split()[0], []).append(offset)
    index = [
        f"{word} n {len(at)} 2 @ ~ {len(at)} 0 {' '.join(f'{o:08d}' for o in at)}  \n"
        for word, at in sorted(words.items())
    ]
    (folder / "index.noun").write_text(licence + "".join(index))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> WordNet:
    return WordNet(write_wordnet(tmp_path))


def test_senses_are_read_in_each_form(small: WordNet) -> None:
    assert small.version == "3.0"
    assert small.gloss(small.synset("crane")) == "gloss of crane"
    assert small.gloss(small.synset("Crane#2")) == "gloss of crane bird"
    assert small.synset(f"n{small.synset('cat')}") == small.synset("cat")
    assert {small.gloss(s) for s in small.hypernyms(small.synset("cat"))} == {
        "gloss of carnivore",
        "gloss of pet",
    }
    assert parse_senses(["cat", "crane#2", "goldie=fish#1"]) == {
        "cat": "cat",
        "crane": "crane#2",
        "goldie": "fish#1",
    }


@pytest.mark.parametrize(
    ("sense", "words"),
    [
        ("wolve", "unknown noun 'wolve'; did you mean 'wolf'"),
        ("crane#3", "'crane' has no sense '3': they are 1 to 2"),
        ("crane#x", "no sense 'x'"),
        ("n00000001", "no synset at 00000001"),
        ("n99999999", "no synset at 99999999"),
    ],
)
def test_senses_that_are_not_there_are_refused(small: WordNet, sense: str, words: str) -> None:
    with pytest.raises(rk.RobustkitError, match=words):
        small.synset(sense)


def test_distances_are_those_counted_by_hand(small: WordNet) -> None:
    classes = parse_senses(["cat", "dog", "wolf", "truck", "crane"])
    # Heights: pet 1, carnivore 1, animal 2, vehicle 2 (by machine), entity 3.
    by_height = [
        [0, 1, 1, 3, 3],
        [1, 0, 1, 3, 3],
        [1, 1, 0, 3, 3],
        [3, 3, 3, 0, 2],
        [3, 3, 3, 2, 0],
    ]
    # cat - pet - animal - entity - vehicle - truck is 5, and one more to crane.
    by_path = [
        [0, 2, 2, 5, 6],
        [2, 0, 2, 5, 6],
        [2, 2, 0, 5, 6],
        [5, 5, 5, 0, 3],
        [6, 6, 6, 3, 0],
    ]
    lca = wordnet_metric(small, classes, "lca")
    path = wordnet_metric(small, classes, "path")
    np.testing.assert_array_equal(lca.costs, np.array(by_height) / 3)
    np.testing.assert_array_equal(path.costs, np.array(by_path) / 6)
    assert lca.classes == tuple(classes) and lca.source.startswith("WordNet 3.0, lca")


def test_a_class_above_another_is_their_common_hypernym(small: WordNet) -> None:
    metric = wordnet_metric(small, parse_senses(["animal", "cat", "truck", "kitty=cat"]), "lca")
    assert cost(metric, "animal", "cat") == 2 / 3
    assert cost(metric, "kitty", "cat") == 0


def test_things_that_have_nothing_in_common_are_refused(tmp_path: Path) -> None:
    apart = WordNet(write_wordnet(tmp_path, {"cat": [], "dog": []}))
    for kind in ("lca", "path"):
        with pytest.raises(rk.BadValueError, match="no hypernym in common"):
            wordnet_metric(apart, parse_senses(["cat", "dog"]), kind)
    with pytest.raises(rk.BadValueError, match="kind of itself"):
        lca_heights({"a": ["b"], "b": ["a"]}, ["a", "b"])


def test_fuzzed_wordnets_are_read_or_refused(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    write_wordnet(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in ("data.noun", "index.noun")}
    for _ in range(200):
        for name, content in whole.items():
            data = bytearray(content)
            place = chance.randrange(len(data))
            data[place : place + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            (tmp_path / name).write_bytes(data)
        for kind in ("lca", "path"):
            try:
                wordnet_metric(WordNet(tmp_path), parse_senses(["cat", "dog", "crane"]), kind)
            except rk.RobustkitError as error:
                assert len(str(error).splitlines()) == 1, seed
            except Exception as error:
                pytest.fail(f"seed {seed}: {error!r}")


@st.composite
def hierarchies(draw: st.DrawFn) -> dict[str, list[str]]:
    """Below one root, each synset under one to three earlier ones."""
    n = draw(st.integers(2, 12))
    return {
        str(k): [str(u) for u in draw(st.sets(st.integers(0, k - 1), min_size=1, max_size=3))]
        if k
        else []
        for k in range(n)
    }


@given(above=hierarchies(), data=st.data())
def test_path_is_a_distance_and_lca_is_symmetric(
    above: dict[str, list[str]], data: st.DataObject
) -> None:
    synsets = data.draw(st.lists(st.sampled_from(sorted(above)), min_size=2, unique=True))
    spanned = hierarchy(above.__getitem__, synsets)
    path = np.array(path_lengths(spanned, synsets))
    lca = np.array(lca_heights(spanned, synsets))
    for matrix in (path, lca):
        assert (matrix == matrix.T).all() and (np.diag(matrix) == 0).all()
        assert (matrix + np.eye(len(synsets)) > 0).all()
    through = (path[:, :, None] + path[None]).min(1)
    assert (path <= through).all()
    # Down to a class and up again is no further than to the deepest class, twice.
    assert (path <= 2 * lca).all()


# ---- measured ones


def test_boundary_distances_of_a_classifier_in_closed_form() -> None:
    # Boundaries of the three: x = 0 (0, 1), x = y (1, 2), x = -y (0, 2), through the origin.
    weight = np.array([[-1.0, 0], [1, 0], [0, 1]])
    x = np.array([[-3.0, 0], [-5, 0], [2, 0], [0, 4]])
    y = np.array([0, 0, 1, 2])
    root = np.sqrt(2)
    expected = [
        [0, (4 + 2) / 2, (4 / root + 4 / root) / 2],
        [(4 + 2) / 2, 0, (2 / root + 4 / root) / 2],
        [(4 / root + 4 / root) / 2, (2 / root + 4 / root) / 2, 0],
    ]
    np.testing.assert_allclose(boundary_distances(x, y, weight, np.zeros(3)), expected)
    shift = np.array([1.0, 5.0])
    found = boundary_distances(x + shift, y, 7 * weight, -7 * weight @ shift)
    np.testing.assert_allclose(found, expected)


class Columns:
    """Images of 1x1x3 whose brightest pixel is their class; 2 is nearer to 1 than to 0."""

    shape = (1, 1, 3)
    classes: tuple[str, ...] = ("left", "middle", "right")
    labels = torch.arange(60) % 3

    def __len__(self) -> int:
        return 60

    def take(self, ids: torch.Tensor) -> torch.Tensor:
        bright = torch.tensor([[255, 0, 0], [0, 120, 60], [0, 60, 120]], dtype=torch.uint8)
        return bright[self.labels[ids]].reshape(-1, 1, 1, 3)


def test_linear_metrics_are_made_of_images() -> None:
    metric = linear_metric(Columns(), "columns", limit=40)
    assert metric.classes == Columns.classes
    assert cost(metric, "middle", "right") < 0.5 < cost(metric, "left", "middle")
    assert "columns, 40 training points, seed 0" in metric.source
    with pytest.raises(rk.BadValueError, match="has none of the 2 points"):
        linear_metric(Columns(), "columns", limit=2)


def test_classes_that_are_confused_are_near() -> None:
    # Shares: 0 for 1 .25, 1 for 0 .25; 1 for 2 .25; class 3 has no points.
    counts = [[6, 2, 0, 0], [1, 2, 1, 0], [0, 0, 9, 0], [0, 0, 0, 0]]
    metric = confusion_metric(tuple("abcd"), counts)
    expected = np.array([[0, 0, 1, 1], [0, 0, 0.5, 1], [1, 0.5, 0, 1], [1, 1, 1, 0]])
    np.testing.assert_allclose(metric.costs, expected)
    with pytest.raises(rk.BadValueError, match="no class is ever taken for another"):
        confusion_metric(("a", "b"), [[3, 0], [0, 2]])


# ---- the command


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["metric", *map(str, arguments)])


def done(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_a_metric_is_made_from_wordnet_written_and_drawn(small: WordNet, tmp_path: Path) -> None:
    out, picture = tmp_path / "cost.csv", tmp_path / "cost.png"
    shown = done(
        *("--wordnet", small.folder, "--classes", "cat,dog,bird=crane#2,truck", "--kind", "path"),
        *("--out", out, "--plot", picture),
    )
    assert "bird   gloss of crane bird" in shown and "nearest: cat and dog" in shown
    made = rk.find_metric(str(out))
    assert made.classes == ("cat", "dog", "bird", "truck")
    assert cost(made, "cat", "dog") == pytest.approx(2 / 5)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "4 classes: cat, dog, bird, truck" in done(out)
    assert "2 classes: dog, cat" in done(out, "--classes", "dog,cat")


def test_metrics_that_come_along_are_listed_and_fit_their_data() -> None:
    listed = done()
    assert all(name in listed for name in shipped())
    assert "nearest: automobile and truck 0.09091" in done(
        "wordnet-cifar10", "--dataset", "cifar10"
    )


def test_a_metric_is_made_from_pixels_and_from_an_evaluation(tmp_path: Path) -> None:
    shown = done("--linear", "--dataset", "digits", "--limit", "300", "--out", tmp_path / "d.csv")
    assert "digits, 300 training points" in shown
    assert rk.find_metric(str(tmp_path / "d.csv")).classes == tuple("0123456789")
    run_folder = write_digits(tmp_path / "run")
    held = sorted(run_folder.evaluations.glob("*.json"))
    assert len(held) > 1 and held[0].name in run("--confusion", run_folder.path).stderr
    assert "10 classes: 0, 1" in done("--confusion", held[0])
    for file in held[1:]:
        file.unlink()
    record = EvalRecord.read(held[0])
    for flags, counts in (
        ([], record.confusion_adversarial),
        (["--clean"], record.confusion_clean),
    ):
        done("--confusion", run_folder.path, *flags, "--out", tmp_path / "c.csv")
        made = rk.find_metric(str(tmp_path / "c.csv"))
        np.testing.assert_array_equal(made.costs, confusion_metric(record.classes, counts).costs)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["wordnet-cifar11"], ["'wordnet-cifar11'", "did you mean 'wordnet-cifar10"]),
        (["absent.csv"], ["'absent.csv'", "No such file"]),
        (["wordnet-cifar10", "--linear"], ["name one of"]),
        (["wordnet-cifar10", "--dataset", "cifar100"], ["'apple'"]),
        (["wordnet-cifar10", "--classes", "cat,dgo"], ["'dgo'", "'dog'"]),
        (["wordnet-cifar10", "--plot", "x.foo"], ["'x.foo'", ".png"]),
        (["--wordnet", "nowhere", "--classes", "a,b"], ["nowhere", "index.noun"]),
        (["--wordnet", "nowhere"], ["--classes"]),
        (["--wordnet", "nowhere", "--classes", "a,a"], ["'a'", "twice"]),
        (["--linear"], ["--dataset"]),
        (["--confusion", "nowhere"], ["'nowhere'"]),
        (["--confusion", "."], ["0 evaluations"]),
    ],
)
def test_bad_input_gives_a_line(
    arguments: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert (result.exit_code, len(lines)) == (2, 1), (result.output, result.exception)
    assert all(part in lines[0] for part in parts), lines[0]


def test_pictures_hold_near_classes_together(tmp_path: Path) -> None:
    order = near_together(rk.find_metric("wordnet-cifar10")).classes
    vehicles = [order.index(c) for c in ("airplane", "automobile", "ship", "truck")]
    assert max(vehicles) - min(vehicles) == 3
    for name in ("wordnet-cifar10", "wordnet-tiny-imagenet"):
        draw_metric(rk.find_metric(name), tmp_path / f"{name}.svg")
        text = (tmp_path / f"{name}.svg").read_text()
        named = [c for c in rk.find_metric(name).classes if f">{c}<" in text]
        assert len(named) == (10 if name.endswith("10") else 100)


def test_senses_are_a_table_of_whole_rows() -> None:
    table = (next(iter(shipped().values())).parent / "senses.tsv").read_text()
    rows = list(csv.reader(io.StringIO(table), delimiter="\t"))
    assert {len(row) for row in rows} == {3} and len(rows) == 1 + 10 + 100 + 200
