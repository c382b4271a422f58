"""Models as files: they come back equal, and nothing foreign runs or raises more than one line."""

from __future__ import annotations

import os
import pickle
import random
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from robustkit.errors import BadValueError, RobustkitError, UnsafeFileError
from robustkit.models import load_model, save_model
from robustkit.models.cnn import CNN
from robustkit.models.formats import plain
from robustkit.models.mlp import MLP
from robustkit.models.unsafe import would_run

SHAPE, CLASSES = (1, 6, 5), ("cat", "dog", "cow")
RECORD = {"threat": {"norm": "linf", "eps": "8/255"}, "epochs": 3, "none": None, "x": [1.5, True]}


class Mark:
    """A pickle that leaves a mark when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def save(path: Path, architecture=MLP(hidden=(4,))) -> torch.nn.Module:  # noqa: B008
    torch.manual_seed(1)
    model = architecture.build(SHAPE, len(CLASSES), [0.2], [0.3])
    save_model(path, model, architecture, SHAPE, CLASSES, [0.2], [0.3], RECORD)
    return model


def alter(path: Path, **changes: object) -> None:
    save(path)
    torch.save({**torch.load(path, weights_only=True), **changes}, path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


def refusal(path: Path, what: str, kind: type[RobustkitError] = BadValueError) -> str:
    with warnings.catch_warnings(record=True) as warned, pytest.raises(RobustkitError) as caught:
        load_model(path)
    assert warned == []
    message = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in message
    assert str(path) in message
    assert what in message, message
    return message


# What comes back


@pytest.mark.parametrize("architecture", [MLP(hidden=(4,)), CNN(width=0.1)], ids=lambda a: a.name)
def test_a_model_comes_back_equal_and_in_eval_mode(path: Path, architecture):
    model = save(path, architecture).eval()
    loaded = load_model(path)
    x = torch.rand(7, *SHAPE)
    assert torch.equal(loaded.module(x), model(x))
    assert not any(m.training for m in loaded.module.modules())
    assert (loaded.shape, loaded.classes, loaded.record) == (SHAPE, CLASSES, RECORD)
    assert loaded.architecture == architecture.dump()
    assert set(torch.load(path, weights_only=True)) == {
        "schema", "architecture", "shape", "classes", "mean", "std", "record", "weights",
    }  # fmt: skip


def test_loading_leaves_random_numbers_alone(path: Path):
    save(path)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    load_model(path)
    assert torch.equal(torch.rand(2), expected)


def test_the_same_model_is_the_same_file(path: Path):
    save(path)
    first = path.read_bytes()
    save(path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_a_failed_save_leaves_the_old_file(path: Path, monkeypatch):
    save(path)
    first = path.read_bytes()

    def full(table, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(BadValueError, match="No space left"):
        save(path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_a_record_that_is_not_plain_is_refused(path: Path):
    model = MLP(hidden=(4,)).build(SHAPE, 3, [0.2], [0.3])
    with pytest.raises(BadValueError, match="not plain data"):
        save_model(path, model, MLP(hidden=(4,)), SHAPE, CLASSES, [0.2], [0.3], {"at": path})
    assert not path.exists()


# What is refused


def test_missing_files_name_the_nearest(path: Path):
    save(path)
    refusal(path.with_name("modle.pt"), "did you mean 'model.pt'?")
    refusal(path.parent / "nowhere" / "model.pt", "does not exist")
    refusal(path.parent, "Is a directory")


def test_truncated_files(path: Path):
    save(path)
    whole = path.read_bytes()
    for length in (0, 2, 3, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refusal(path, "truncated or damaged" if length > 1 else "damaged")


def test_a_flipped_weight_is_noticed(path: Path):
    save(path)
    whole = path.read_bytes()
    at = whole.index(load_model(path).module.head.weight.detach().numpy().tobytes())
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    refusal(path, "Bad CRC-32")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("<!DOCTYPE html><html>Not found</html>", "an HTML or XML page"),
        ("\n  <html>", "an HTML or XML page"),
        ("version https://git-lfs.github.com/spec/v1\noid 1", "begins 'version https://git-lfs"),
        ("conda create -n env\nimport torch\n", "text that begins 'conda create"),
        ("caf\xe9\x80\xff\x01", "damaged"),
    ],
)
def test_pages_and_texts(path: Path, content, what):
    path.write_bytes(content.encode("latin-1"))
    refusal(path, what)


def test_foreign_zips(path: Path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    refusal(path, "a zip of something else: it holds word/document.xml")
    zipfile.ZipFile(path, "w").close()
    refusal(path, "it holds nothing")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    refusal(path, "damaged")


def test_torchscript_is_not_ours(path: Path):
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("code/__torch__.py", "data.pkl", "constants.pkl"):
            archive.writestr(f"net/{part}", pickle.dumps({}, 2))
    refusal(path, "TorchScript")


@pytest.mark.parametrize("zipped", [True, False])
def test_bare_weights_cannot_be_rebuilt(path: Path, zipped):
    weights = torch.nn.Linear(2, 2).state_dict()
    for content in (weights, {"state_dict": weights}, {"model_state_dict": weights, "epoch": 3}):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        refusal(path, "holds weights only ('weight', ...)")


def test_other_data(path: Path):
    torch.save(torch.zeros(2), path)
    refusal(path, "holds a Tensor")
    torch.save({"a": 1}, path)
    refusal(path, "has no 'schema'")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_refused_by_name(path: Path, zipped):
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=zipped)
    refusal(path, "would run torch.nn.modules.linear.Linear", UnsafeFileError)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_a_malicious_pickle_is_named_and_not_run(path: Path, tmp_path: Path, protocol, form):
    mark = tmp_path / "mark"
    content = {"schema": 1, "architecture": Mark(mark), "weights": {}}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol))
    else:
        torch.save(
            content, path,
            pickle_protocol=protocol, _use_new_zipfile_serialization=form == "zip",
        )  # fmt: skip
    refusal(path, f"would run {os.system.__module__}.system", UnsafeFileError)
    # Cut short, the code would still have run before the cut was met.
    if form != "zip":
        path.write_bytes(path.read_bytes()[:-1])
        refusal(path, f"would run {os.system.__module__}.system", UnsafeFileError)
    assert not mark.exists()


def test_would_run_reads_every_way_of_naming():
    assert would_run(b"cos\nsystem\n(S'x'\ntR.") == ["os.system"]
    assert would_run(b"(S'x'\nios\nsystem\n.") == ["os.system"]
    assert would_run(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93.") == ["os.system"]
    recalled = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x9400h\x00h\x01\x93."
    assert would_run(recalled) == ["os.system"]
    assert would_run(b"\x80\x02\x82\x07.") == []  # pickletools cannot name it; torch refuses it
    assert would_run(pickle.dumps({"a": [1, 2.5, None, "x"]})) == []


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
def test_torchs_own_loader_is_a_second_wall(path: Path, tmp_path: Path, monkeypatch, form):
    """Where a pickle would mislead our reader, nothing runs all the same."""
    monkeypatch.setattr(plain, "would_run", lambda data: [])
    mark = tmp_path / "mark"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Mark(mark)))
    else:
        torch.save(Mark(mark), path, _use_new_zipfile_serialization=form == "zip")
    refusal(path, "damaged")
    assert not mark.exists()


def test_newer_schemas(path: Path):
    alter(path, schema=2)
    refusal(path, "schema 2, written by a newer robustkit")


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"schema": "1"}, "schema"),
        ({"shape": (1, 6)}, "shape"),
        ({"shape": (1, 6, 0)}, "shape"),
        ({"classes": ()}, "classes"),
        ({"classes": (1, 2, 3)}, "classes"),
        ({"weights": {"head.weight": 3}}, "weights"),
        ({"architecture": "mlp"}, "architecture"),
        ({"record": [1]}, "record"),
        ({"architecture": {"name": "mpl"}}, "did you mean 'mlp'"),
        ({"architecture": {"name": "pgd"}}, "'pgd' is registered as attack"),
        ({"architecture": {"name": "os:system"}}, "'os:system', code that no file may have run"),
        ({"architecture": {"name": "mlp", "hiden": [4]}}, "did you mean 'hidden'"),
        ({"architecture": {"name": "mlp", "hidden": [0]}}, "hidden"),
        (
            {"architecture": {"name": "mlp", "hidden": [5]}},
            "'features.2.weight' have shape (4, 30)",
        ),
        ({"classes": ("a", "b")}, "'head.weight' have shape (3, 4), but the architecture needs"),
        ({"architecture": {"name": "lenet5"}}, "'features.1.weight' are missing"),
        ({"shape": (1, 60000, 60000)}, "does not build"),
    ],
)
def test_content_that_does_not_fit(path: Path, changes, what):
    alter(path, **changes)
    refusal(path, what)


def test_weights_that_do_not_fit_name_the_first_key(path: Path):
    save(path)
    weights = torch.load(path, weights_only=True)["weights"]
    alter(path, weights={**weights, "more": torch.zeros(1)})
    refusal(path, "weights 'more' belong to no part of its architecture")
    alter(path, weights={**weights, "head.bias": torch.tensor([0.0, float("nan"), 0.0])})
    refusal(path, "weights 'head.bias' are NaN")


def test_a_part_that_torch_takes_for_a_folder_still_counts(path: Path):
    """Found by fuzzing: with the folder bit set, torch reads zeros where the weights are."""
    model = save(path)
    whole = bytearray(path.read_bytes())
    whole[whole.rindex(b"archive/data/3") - 8] |= 0x10
    path.write_bytes(whole)
    assert torch.equal(load_model(path).module.head.weight, model.head.weight)
    assert torch.equal(load_model(path).module.features[2].bias, model.features[2].bias)


# Fuzz


def mutated(whole: bytes, rng: random.Random) -> bytes:
    data, kind = bytearray(whole), rng.choice(("truncate", "flip", "flip", "splice", "zero"))
    if kind == "truncate":
        return bytes(data[: rng.randrange(len(data))])
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 2, 20))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(data)
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 64, 1000))
    if kind == "zero":
        data[start : start + length] = bytes(len(data[start : start + length]))
        return bytes(data)
    source, replaced = rng.randrange(len(data)), rng.choice((0, length))
    data[start : start + replaced] = data[source : source + length]
    return bytes(data)


def fuzz(path: Path, files: int, seed: int) -> None:
    print(f"fuzz seed {seed}")
    rng = random.Random(seed)
    save(path)
    whole, good = path.read_bytes(), load_model(path)
    expected, counts = good.module.state_dict(), {"equal": 0, "refused": 0}
    for case in range(files):
        path.write_bytes(mutated(whole, rng))
        try:
            loaded = load_model(path)
        except RobustkitError as error:
            assert "\n" not in str(error), (seed, case, str(error))
            counts["refused"] += 1
            continue
        except BaseException as error:
            raise AssertionError(f"seed {seed}, case {case}: {error!r}") from error
        weights = loaded.module.state_dict()
        assert (loaded.shape, loaded.classes, loaded.record, loaded.architecture) == (
            good.shape, good.classes, good.record, good.architecture,
        ), (seed, case)  # fmt: skip
        assert all(torch.equal(weights[k], expected[k]) for k in expected), (seed, case)
        counts["equal"] += 1
    print(counts)
    assert counts["refused"] > files / 4


def test_damaged_files_load_equal_or_are_refused(path: Path):
    fuzz(path, 200, seed=random.SystemRandom().randrange(2**32))


@pytest.mark.slow
def test_many_damaged_files_load_equal_or_are_refused(path: Path):
    fuzz(path, 10_000, seed=random.SystemRandom().randrange(2**32))
