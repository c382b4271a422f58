"""Targeted verdicts: only what is taken for the target counts; and how near the others came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_parts import Means, Walk, points_of, run
from torch import Tensor, nn

from robustkit.arrays import EvalPoints, Gallery
from robustkit.attacks.apgd import APGDCE, APGDTargeted
from robustkit.attacks.autoattack import AutoAttack
from robustkit.attacks.pgd import PGD
from robustkit.data.digits import Digits
from robustkit.data.images import ArrayImages, unit
from robustkit.engine.evaluation import finished
from robustkit.engine.targets import target_name, targets_of
from robustkit.engine.verdict import Judge
from robustkit.errors import BadValueError, RobustkitError
from robustkit.interfaces import Attack
from robustkit.records import RunFolder, Threat
from robustkit.report import html, images, markdown
from robustkit.report.accuracies import rows
from robustkit.report.collect import collect
from robustkit.report.measures import curves
from robustkit.report.summary import verdict
from robustkit.report.words import with_interval
from robustkit.testing.bench import linear_model, linear_points, nearest_classes
from robustkit.threat import ThreatModel

NAMES = ("ant", "bee", "cat", "dog")


def quadrants() -> ArrayImages:
    """The bench's linear points as a data set: the distance to each class is known."""
    x, y = linear_points()
    pixels = (255 * x).round().to(torch.uint8)
    return ArrayImages(pixels.numpy(), y.numpy(), NAMES)


def digits() -> tuple[Means, Any]:
    train, test = Digits().split("train"), Digits().split("test")
    return Means(unit(train.take(torch.arange(len(train)))), train.labels, 10), test


def radius(model: nn.Module, x: Tensor, of: int, to: int, norm: str) -> float:
    """Give how far the border to a class is where no third class comes between: two quadrants."""
    logits = model(x)[0].detach()
    lead = float(logits[of] - logits[to])
    return lead / {"linf": 32, "l2": 32**0.5, "l1": 1}[norm]


@pytest.mark.parametrize(
    "attack", [PGD(steps=60), APGDCE(steps=40), APGDTargeted(), AutoAttack()], ids=lambda a: a.name
)
def test_a_target_is_reached_within_its_own_radius(attack: Attack, tmp_path: Path) -> None:
    model, images = linear_model(), quadrants()
    x = unit(images.take(torch.arange(6)))
    for name, label in (("bee", 1), ("dog", 3)):
        others = [i for i, y in enumerate(images.labels.tolist()) if y != label]
        far = {i: radius(model, x[i : i + 1], int(images.labels[i]), label, "linf") for i in others}
        eps = sorted(far.values())[2] * 1.2  # some points are within, some may not be
        threat = ThreatModel("linf", eps, target=name)
        (record,) = run(tmp_path, model, images, [attack], threat)
        points = points_of(tmp_path, record)
        assert sorted(points.ids.tolist()) == others
        assert record.clean.count == record.robust.n == len(others)
        assert record.reached is not None
        assert record.reached.count + record.robust.count == len(others) == record.reached.n
        within = [i for i in others if far[i] < eps / 1.15]
        reached = points.ids[~points.robust].tolist()
        assert set(within) <= set(reached)
        assert {i for i in others if far[i] > eps} & set(reached) == set()
        assert (points.adversarial_predictions[~points.robust] == label).all()
        count = int((images.labels == label).sum())
        assert f"the {count} points whose label is the target are left out" in record.remarks


def test_another_wrong_class_is_no_success(tmp_path: Path) -> None:
    """The second nearest class is out of reach, the nearest is not."""
    model, images = linear_model(), quadrants()
    x, y = unit(images.take(torch.arange(6))), images.labels
    eps = 0.055
    (plain,) = run(tmp_path, model, images, [PGD()], ThreatModel("linf", eps))
    assert plain.robust.count == 0 and plain.reached is None
    ranks = nearest_classes(x, y)
    for label, name in enumerate(NAMES):
        (record,) = run(tmp_path, model, images, [PGD()], ThreatModel("linf", eps, target=name))
        reached = points_of(tmp_path, record).ids[~points_of(tmp_path, record).robust]
        assert set(reached.tolist()) == {i for i in range(6) if int(ranks[i, 0]) == label}
        assert record.hash != plain.hash


def test_nan_reaches_no_target() -> None:
    class Blank(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), torch.nan)

    x, y, to = torch.zeros(2, 1, 2, 2), torch.tensor([1, 2]), torch.tensor([0, 0])
    verdicts = Judge(Blank(), 0).decide(x, x, y, ThreatModel("linf", 0.1), to)
    assert not verdicts.broken.any()
    assert Judge(Blank(), 0).decide(x, x, y, ThreatModel("linf", 0.1)).broken.all()


def test_targets_are_never_the_label() -> None:
    model, test = digits()
    judge, ids = Judge(model, 0), torch.arange(200)
    x, y = unit(test.take(ids)), test.labels[ids]
    least = targets_of("least-likely", test.classes, judge, ids, x, y)
    assert torch.equal(least, model(x).argmin(1))
    drawn = targets_of("random", test.classes, judge, ids, x, y)
    assert (drawn != y).all() and drawn.unique().numel() == 10
    assert np.bincount((drawn - y).numpy() % 10, minlength=10)[1:].min() >= 10
    some = torch.tensor([7, 3])
    again = targets_of("random", test.classes, judge, ids[some], x[some], y[some])
    assert torch.equal(again, drawn[some])
    other = targets_of("random", test.classes, Judge(model, 1), ids, x, y)
    assert not torch.equal(other, drawn)
    assert (targets_of("3", test.classes, judge, ids, x, y) == 3).all()


@pytest.mark.parametrize("target", ["random", "least-likely", "3"])
def test_targeted_verdicts_do_not_depend_on_the_batch_size(target: str, tmp_path: Path) -> None:
    model, test = digits()
    threat, tables = ThreatModel("l2", 1.5, target=target), []
    for size in (7, 300):
        folder = tmp_path / str(size)
        (record,) = run(folder, model, test, [PGD()], threat, batch_size=size, limit=100)
        points = points_of(folder, record)
        tables.append([points.ids.tolist(), points.broken_by.tolist()])
    assert record.limit == 100 == record.robust.n
    assert tables[0] == tables[1] and 0 in tables[0][1] and -1 in tables[0][1]


def test_a_limit_counts_the_points_that_are_left(tmp_path: Path) -> None:
    model, test = digits()
    threat = ThreatModel("linf", 0.1, target="3")
    (record,) = run(tmp_path, model, test, [PGD(steps=2)], threat)
    threes = int((test.labels == 3).sum())
    assert record.robust.n == 360 - threes and record.limit is None
    ids = [0, *(test.labels == 3).nonzero().flatten().tolist()[:2], 5]
    (named,) = run(tmp_path, model, test, [PGD(steps=2)], threat, ids=ids)
    assert points_of(tmp_path, named).ids.tolist() == [i for i in ids if test.labels[i] != 3]
    with pytest.raises(BadValueError, match="no point is left whose label is not '3'"):
        run(tmp_path, model, test, [PGD()], threat, ids=ids[1:3])
    with pytest.raises(BadValueError, match="give one target"):
        run(tmp_path, model, test, [PGD()], threat, ThreatModel("linf", 0.1))


@pytest.mark.parametrize(
    ("text", "name"),
    [("cat", "cat"), ("2", "cat"), ("0", "ant"), ("random", "random"), ("least-likely",) * 2],
)
def test_a_target_is_read(text: str, name: str) -> None:
    assert target_name(text, NAMES) == name


def test_a_name_goes_before_a_number() -> None:
    assert target_name("1", ["5", "1", "0"]) == "1"
    assert target_name("2", ["5", "1", "0"]) == "0"


@pytest.mark.parametrize(
    ("text", "said"), [("cst", "did you mean 'cat'"), ("4", "number, up to 3"), ("-1", "up to 3")]
)
def test_a_target_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(RobustkitError, match=said) as refused:
        target_name(text, NAMES)
    assert "\n" not in str(refused.value)


def test_a_threat_says_its_target() -> None:
    threat = ThreatModel("linf", 8 / 255, bits=8, target="cat")
    assert str(threat) == "linf 8/255, 8 bits, target cat"
    assert Threat.of(threat).model() == threat


def test_the_margin_that_was_left_is_kept(tmp_path: Path) -> None:
    model, test = digits()
    threat = ThreatModel("l2", 0.8)
    (record,) = run(tmp_path, model, test, [PGD()], threat)
    points = points_of(tmp_path, record)
    assert np.array_equal(np.isfinite(points.margins), points.robust)
    assert (points.margins[points.robust] >= 0).all()
    gallery = Gallery.read(RunFolder(tmp_path).gallery(record.stem))
    robust = ~np.isnan(gallery.margins)
    assert robust.sum() == 16 and (~robust).sum() == 16
    # The closest of all, in their order, at the margin that is said of them.
    assert gallery.margins[robust].tolist() == sorted(points.margins[points.robust])[:16]
    logits = model(torch.from_numpy(gallery.x_adv[robust]))
    y = torch.from_numpy(gallery.labels[robust])
    assert torch.equal(logits.argmax(1), y)
    top = logits.topk(2).values
    left = (top[:, 0] - top[:, 1]).detach().numpy()
    assert left == pytest.approx(gallery.margins[robust], abs=1e-4)
    sizes = threat.size(torch.from_numpy(gallery.x_adv - gallery.x).double())
    assert (sizes <= threat.eps + threat.tolerance).all() and (sizes[robust] > 0.7).all()


def test_of_several_parts_the_closest_proposal_is_kept(tmp_path: Path) -> None:
    from eval_parts import Several

    model, test = digits()
    threat = ThreatModel("linf", 0.04)
    single = {}
    for name in ("idle", "step", "walk"):
        (record,) = run(tmp_path, model, test, [Several(names=(name,))], threat, limit=60)
        single[name] = points_of(tmp_path, record)
    (record,) = run(
        tmp_path, model, test, [Several(names=("idle", "step", "walk"))], threat, limit=60
    )
    points = points_of(tmp_path, record)
    least = np.fmin.reduce([table.margins for table in single.values()])
    assert points.margins[points.robust] == pytest.approx(least[points.robust], abs=1e-5)
    assert (points.margins[points.robust] < single["idle"].margins[points.robust] - 1e-3).any()


def test_a_target_has_its_own_margin(tmp_path: Path) -> None:
    model, test = digits()
    threat = ThreatModel("l2", 0.3, target="3")
    (record,) = run(tmp_path, model, test, [Walk()], threat, limit=80)
    points = points_of(tmp_path, record)
    gallery = Gallery.read(RunFolder(tmp_path).gallery(record.stem))
    logits = model(torch.from_numpy(gallery.x_adv[~np.isnan(gallery.margins)])).detach()
    others = logits.clone()
    others[:, 3] = -torch.inf
    left = (others.amax(1) - logits[:, 3]).numpy()
    assert left == pytest.approx(sorted(points.margins[points.robust])[:16], abs=1e-4)


def test_files_of_before_margins_are_read(tmp_path: Path) -> None:
    model, test = digits()
    (record,) = run(tmp_path, model, test, [PGD(steps=2)], ThreatModel("l2", 0.8), limit=20)
    stem = RunFolder(tmp_path).evaluations / record.stem
    paths = (stem.with_name(stem.name + ".npz"), RunFolder(tmp_path).gallery(record.stem))
    for path in paths:
        with np.load(path) as arrays:
            older = {name: arrays[name] for name in arrays if name != "margins"}
        np.savez(path, **older)
    assert np.isnan(EvalPoints.read(paths[0]).margins).all()
    assert len(EvalPoints.read(paths[0]).margins) == 20
    assert np.isnan(Gallery.read(paths[1]).margins).all()
    assert finished(stem) is not None
    np.savez(paths[0], **{**older, "x": 1})
    with pytest.raises(BadValueError, match="is damaged"):
        EvalPoints.read(paths[0])


def test_a_report_tells_targeted_numbers_apart(tmp_path: Path) -> None:
    model, test = digits()
    plain_threat, targeted = ThreatModel("linf", 0.05), ThreatModel("linf", 0.05, target="3")
    (plain,) = run(tmp_path, model, test, [PGD(steps=5)], plain_threat, limit=100)
    (found,) = collect([tmp_path])
    before = verdict(found)
    attacks = [PGD(steps=5), APGDCE(steps=10)]
    one, other = run(tmp_path, model, test, attacks, targeted, limit=100)
    (found,) = collect([tmp_path])
    assert verdict(found) == before and "Robust accuracy" in before
    cells = {(row.attack, row.threat): (row.robust, row.instead) for row in rows(found)}
    assert cells["pgd", "linf 0.05"] == (plain.robust, "")
    for record in (one, other):
        assert record.reached is not None
        reached = f"reached {with_interval(record.reached)}"
        assert cells[record.attack["name"], "linf 0.05, target 3"] == (None, reached)
    # Both attack the same points; the worst case is of what either reached.
    either = sum(~(points_of(tmp_path, one).robust & points_of(tmp_path, other).robust))
    wrong = one.robust.n - one.clean.count
    share = f"{100 * (either - wrong) / one.clean.count:.1f} %"
    assert share in cells["worst case", "linf 0.05, target 3"][1]
    page = html.render([found])
    assert "target reached on" in page and "not made into the target" not in page
    assert "Closest to break under pgd linf 0.05" in page
    assert "over the target&#39;s that was left" in page
    assert page.count("withstood, margin left") <= 3 * images.CLOSEST
    assert curves(found.evaluations) == []
    lonely = tmp_path / "lonely"
    run(lonely, model, test, [PGD(steps=5)], targeted, limit=100)
    (found,) = collect([lonely])
    assert verdict(found).startswith("Target reached on ")
    assert "3" in markdown.render([found])


def test_the_closest_are_shown_with_their_margins(tmp_path: Path) -> None:
    model, test = digits()
    run(tmp_path, model, test, [PGD(steps=5)], ThreatModel("l2", 0.8), limit=100)
    (found,) = collect([tmp_path])
    (evaluation,) = found.evaluations
    assert evaluation.gallery is not None
    close = images.closest(evaluation, evaluation.gallery, 1)
    broken = images.examples(evaluation, evaluation.gallery, 1)
    assert close is not None and broken is not None
    assert all(e.fooled and not e.margin for e in broken.shown)
    margins = [float(e.margin) for e in close.shown]
    assert margins == sorted(margins) and len(margins) == images.CLOSEST
    least = evaluation.points.margins[evaluation.points.robust].min()
    assert margins[0] == pytest.approx(least, rel=1e-2)
