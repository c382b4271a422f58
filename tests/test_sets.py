"""Fixed adversarial sets: known answers of transfer, and files that nobody need trust."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_parts import (
    SMALL_BLOCK,
    Idle,
    Linear,
    Nearest,
    NotANumber,
    Several,
    Step,
    Walk,
    Watcher,
    linear_images,
    points_of,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from robustkit.attacks.pgd import PGD
from robustkit.data.images import ArrayImages
from robustkit.engine import blocks
from robustkit.engine.craft import craft
from robustkit.engine.fixed import Fixed
from robustkit.engine.identity import hash_module
from robustkit.errors import BadValueError, BrokenPluginError
from robustkit.interfaces import Attack
from robustkit.report import collect
from robustkit.report.accuracies import rows
from robustkit.report.summary import evaluation_origins, headline
from robustkit.sets import AdversarialSet
from robustkit.threat import ThreatModel

LINF = ThreatModel("linf", 0.004)


def make(
    out: Path, model: Linear, images: Any, attack: Attack, threat: ThreatModel, **options: Any
) -> AdversarialSet:
    """Make a set on the processor with what is the same in every test."""
    return craft(
        model,
        images,
        attack,
        threat,
        out=out,
        model_name="first",
        model_hash=hash_module(model),
        data={"name": "test"},
        **{"device": "cpu", **options},
    )


def originals(images: ArrayImages, made: AdversarialSet) -> np.ndarray[Any, Any]:
    return (images.take(torch.from_numpy(made.ids)).float() / torch.tensor(255.0)).numpy()


def lead(model: Linear, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Give w.x + b in float64: class 0 where it is positive."""
    w, b = model.w.detach().double().numpy(), float(model.b.detach())
    return np.asarray(x.reshape(len(x), -1).astype(np.float64) @ w + b)


@pytest.mark.parametrize(
    "threat",
    [LINF, ThreatModel("l2", 0.02), ThreatModel("linf", 0.02, -math.inf, math.inf)],
    ids=str,
)
def test_a_set_breaks_on_another_model_what_its_sign_says(
    threat: ThreatModel, tmp_path: Path
) -> None:
    first, second = Linear(0), Linear(3)
    images = linear_images(second)
    made = make(tmp_path / "set.npz", first, images, Step(), threat)
    x, y = originals(images, made), images.labels.numpy()[made.ids]
    assert made.labels is not None and np.array_equal(made.labels, y)
    assert len(made) == 200
    # On the model that it was made on: by its sign, too.
    right, holds = ((lead(first, at) < 0) == y for at in (x, made.x_adv))
    assert made.record is not None
    assert made.record.clean.count == right.sum()
    assert made.record.robust.count == (right & holds).sum() < right.sum()
    right, holds = ((lead(second, at) < 0) == y for at in (x, made.x_adv))
    attack = Fixed.of(AdversarialSet.read(tmp_path / "set.npz"), images)
    (record,) = run(tmp_path, second, images, [attack], threat, ids=made.ids)
    assert record.clean.count == right.sum() == 190
    assert record.robust.count == (right & holds).sum()
    assert 0 < record.robust.count < 190
    points = points_of(tmp_path, record)
    assert np.array_equal(points.ids, made.ids)
    assert np.array_equal(points.robust, right & holds)
    assert record.valid and record.transferred
    assert (record.limit, record.named) == (200, True)
    assert record.remarks == (f"images were made on 'first' by step ({threat}), not on this model",)
    assert record.attack["attack"] == Step().dump()
    assert (record.attack["digest"], record.attack["model"]) == (made.digest, "first")


def test_on_its_own_model_a_set_gives_what_its_record_says(tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    made = make(tmp_path / "set.npz", model, images, Step(), LINF)
    (record,) = run(tmp_path, model, images, [Fixed.of(made, images)], LINF, ids=made.ids)
    (direct,) = run(tmp_path, model, images, [Step()], LINF)
    assert made.record is not None
    assert record.robust == made.record.robust == direct.robust
    assert record.clean == made.record.clean == direct.clean
    assert not record.transferred
    assert "this very model" in record.remarks[0]


def test_the_first_points_of_a_set_can_be_shown_alone(tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    made = make(tmp_path / "set.npz", model, images, Step(), LINF, limit=60, seed=5)
    (record,) = run(tmp_path, model, images, [Fixed.of(made, images)], LINF, ids=made.ids, limit=9)
    assert points_of(tmp_path, record).ids.tolist() == made.ids[:9].tolist()
    assert ("Data", "test, test part, 9 by their ids") in evaluation_origins(record)
    assert made.record is not None
    assert (made.record.limit, made.record.seed) == (60, 5)


def test_every_point_is_attacked_and_to_the_end(tmp_path: Path) -> None:
    """In evaluation PGD leaves a point where the model is wrong first; a set's goes on."""
    model = Linear()
    images = linear_images(model)
    # A fortieth of the radius of most points: a few small steps break them.
    attack, threat = PGD(steps=10, step_size=0.01, random_start=False), ThreatModel("linf", 0.1)
    made = make(tmp_path / "set.npz", model, images, attack, threat)
    moved = np.abs(made.x_adv.astype(np.float64) - originals(images, made))
    assert np.allclose(moved, 0.1, atol=1e-6)
    assert made.record is not None
    (part,) = made.record.parts
    assert (part.attacked, part.backwards) == (200, 2000)
    assert made.record.clean.count == 190
    assert made.record.robust.count == 0


def test_later_parts_attack_what_earlier_ones_did_not_fool(tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    made = make(tmp_path / "a.npz", model, images, Several(names=("idle", "step")), LINF)
    x = originals(images, made)
    wrong = (lead(model, x) < 0) != made.labels
    still = (made.x_adv == x).all((1, 2, 3))
    # Nothing need be done where the model is wrong anyway; the step moves all others.
    assert np.array_equal(still, wrong)
    assert wrong.sum() == 10
    made = make(tmp_path / "b.npz", model, images, Several(names=("step", "idle")), LINF)
    alone = make(tmp_path / "c.npz", model, images, Step(), LINF)
    fooled = (lead(model, alone.x_adv) < 0) != made.labels
    # The last proposal stays where none fools the model, and it is the original here.
    assert np.array_equal(made.x_adv, np.where(fooled[:, None, None, None], alone.x_adv, x))
    assert made.record is not None
    assert [part.attacked for part in made.record.parts] == [200, 200 - fooled.sum()]
    assert made.record.remarks == ("2 parts of 2 classes",)


@pytest.mark.parametrize("names", [("nearest", "nearer"), ("nearer", "nearest")])
def test_of_smallest_perturbations_the_smaller_one_stays(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    model, threat = Linear(), ThreatModel("linf", "inf")  # type: ignore[arg-type]
    images = linear_images(model, wrong=1)
    made = make(tmp_path / "set.npz", model, images, Several(names=names), threat)
    alone = make(tmp_path / "alone.npz", model, images, Nearest(), threat)
    right = (lead(model, originals(images, made)) < 0) == made.labels
    assert np.array_equal(made.x_adv[right], alone.x_adv[right])
    back = AdversarialSet.read(tmp_path / "set.npz")
    assert back.record == made.record
    (record,) = run(tmp_path, Linear(2), images, [Fixed.of(back, images)], threat, ids=made.ids)
    assert record.valid


def test_a_set_moved_out_of_its_ball_is_not_believed(tmp_path: Path) -> None:
    first, second = Linear(0), Linear(3)
    images = linear_images(second)
    made = make(tmp_path / "set.npz", first, images, Idle(), LINF)
    x_adv = made.x_adv.copy()
    x_adv[20:50, 0, 0, 0] += 0.0041
    tampered = replace(made, x_adv=x_adv)
    assert tampered.digest != made.digest
    (record,) = run(tmp_path, second, images, [Fixed.of(tampered, images)], LINF, ids=made.ids)
    points = points_of(tmp_path, record)
    outside = np.zeros(200, bool)
    outside[20:50] = True
    assert not points.robust[outside].any()
    assert np.array_equal(points.broken_by == -3, outside & (points.broken_by != -2))
    assert not record.valid
    assert any(
        "'fixed' is broken" in line and "outside linf 0.004" in line for line in record.warnings
    )


@pytest.mark.parametrize(
    ("attack", "parts"),
    [
        (Step(factor=2), ["'step'", "outside linf 0.004", "(up to 0.008)", "of 64 proposals"]),
        (NotANumber(), ["'not-a-number'", "not numbers"]),
        (Several(names=("idle", "outside")), ["'step'", "(up to 0.012)"]),
    ],
)
def test_a_broken_attack_makes_no_set(attack: Attack, parts: list[str], tmp_path: Path) -> None:
    model = Linear()
    with pytest.raises(BrokenPluginError) as refused:
        make(tmp_path / "set.npz", model, linear_images(model), attack, LINF, batch_size=64)
    for part in parts:
        assert part in str(refused.value)
    assert not (tmp_path / "set.npz").exists()


def test_the_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = Linear().train()
    before = hash_module(model)
    make(tmp_path / "set.npz", model, linear_images(model), PGD(steps=2), LINF)
    assert model.training and model.w.requires_grad and model.w.grad is None
    assert hash_module(model) == before


def test_a_set_depends_on_no_batch_size(tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    sets = [
        make(tmp_path / f"{n}.npz", model, images, Walk(), ThreatModel("l2", 0.1), batch_size=n)
        for n in (7, 64, 200)
    ]
    assert len({made.digest for made in sets}) == 1


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    model, out, watcher = Linear(), tmp_path / "set.npz", Watcher()
    images = linear_images(model)
    made = make(out, model, images, Step(), LINF)
    content = out.read_bytes()
    with pytest.raises(BadValueError, match="there already"):
        make(out, model, images, Step(), LINF)
    with pytest.raises(BadValueError, match="another set"):
        make(out, model, images, Step(factor=0.5), LINF, resume=True)
    again = make(out, model, images, Step(), LINF, resume=True, progress=watcher)
    assert again.digest == made.digest and again.record == made.record
    assert ["is finished already" in note for note in watcher.notes] == [True]
    assert out.read_bytes() == content
    make(out, model, images, Step(factor=0.5), LINF, fresh=True)
    assert AdversarialSet.read(out).digest != made.digest


def craft_killed(out: Path, dies_at: int) -> None:
    """Make a set in this process and die at the n-th sign of progress; never, at -1."""
    blocks.BLOCK = SMALL_BLOCK
    watcher, left = Watcher(), dies_at

    def count(*args: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    watcher.update = count  # type: ignore[method-assign, assignment]
    model = Linear()
    attack = Several(names=("walk", "step"))
    make(
        out, model, linear_images(model), attack, LINF, batch_size=16, resume=True, progress=watcher
    )


@pytest.mark.parametrize("dies_at", [9, 23])
def test_killed_and_resumed_gives_the_same_bits(
    dies_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL_BLOCK)
    craft_killed(tmp_path / "whole.npz", -1)
    code = f"import pathlib, test_sets; test_sets.craft_killed(pathlib.Path({str(tmp_path)!r})"
    code += f" / 'set.npz', {dies_at})"
    died = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert died.returncode == -signal.SIGKILL
    assert not (tmp_path / "set.npz").exists()
    assert list(tmp_path.glob("set.npz-*.partial/block*"))
    craft_killed(tmp_path / "set.npz", -1)
    whole, resumed = (AdversarialSet.read(tmp_path / f"{n}.npz") for n in ("whole", "set"))
    for name in ("ids", "labels", "x_adv"):
        assert getattr(whole, name).tobytes() == getattr(resumed, name).tobytes()
    assert whole.record is not None and resumed.record is not None
    assert whole.record.robust == resumed.record.robust
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set.npz", "whole.npz"]


def test_a_resumed_set_takes_up_what_was_done(tmp_path: Path) -> None:
    """What is on disk is not attacked again: it comes back even where it was changed."""
    model, watcher = Linear(), Watcher()
    images = linear_images(model)

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    watcher.update = interrupt  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "set.npz", model, images, Step(), LINF, progress=watcher, batch_size=200)
    assert not list(tmp_path.glob("**/block*"))
    ticks: list[Any] = []
    watcher.update = lambda *args: ticks.append(args) or len(ticks) < 2 or interrupt()  # type: ignore
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "set.npz", model, images, Step(), LINF, progress=watcher, batch_size=200)
    assert len(list(tmp_path.glob("set.npz-*.partial/block*"))) == 1
    last = Watcher()
    made = make(tmp_path / "set.npz", model, images, Step(), LINF, resume=True, progress=last)
    assert last.notes == ["set.npz: 1 steps are done already"]
    assert made.record is not None and made.record.parts[0].attacked == 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": lambda a: 1 - a}, "200 of its 200 labels differ"),
        ({"x_adv": lambda a: a[:, :, :3]}, "images of 1x3x4, the data set of 1x4x4"),
        ({"ids": lambda a: a + 1}, "shows point 200, the data set has only 200"),
    ],
)
def test_a_set_of_other_data_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    model = Linear()
    images = linear_images(model)
    made = make(tmp_path / "set.npz", model, images, Idle(), LINF)
    other = replace(made, **{name: alter(getattr(made, name)) for name, alter in change.items()})
    with pytest.raises(BadValueError, match=message):
        Fixed.of(other, images)


def test_points_without_an_image_are_refused(tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    made = make(tmp_path / "set.npz", model, images, Idle(), LINF, limit=20)
    with pytest.raises(BadValueError, match=f"set {made.digest} holds no image"):
        run(tmp_path, model, images, [Fixed.of(made, images)], LINF)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 200], "id 200 is not of the 200 points"),
        ([-1], "id -1 is not"),
        ([3, 3], "twice"),
        ([], "not integers"),
        ([[1, 2]], "not integers"),
        ([0.5], "not integers"),
        ([True], "not integers"),
        ([7], "point 7 of the data set has no label"),
    ],
)
def test_ids_that_name_no_points(ids: Any, message: str, tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    images.labels[7] = -1
    with pytest.raises(BadValueError, match=message):
        run(tmp_path, model, images, [Step()], LINF, ids=ids)


@pytest.mark.parametrize("kind", ["float32", "float64", "uint8"])
def test_images_of_another_tool_are_of_the_first_points(kind: str, tmp_path: Path) -> None:
    model, threat = Linear(), ThreatModel("linf", 5 / 255)
    images = linear_images(model)
    pixels = images.take(torch.arange(50)).numpy()
    pixels = (pixels + 4).astype(np.uint8)
    x_adv = pixels if kind == "uint8" else (pixels / 255).astype(kind)
    np.savez(tmp_path / "foreign.npz", x_adv=x_adv, more=np.zeros(3))
    made = AdversarialSet.read(tmp_path / "foreign.npz")
    assert made.record is None and made.labels is None
    assert made.ids.tolist() == list(range(50))
    (record,) = run(tmp_path, model, images, [Fixed.of(made, images)], threat, ids=made.ids)
    y = images.labels.numpy()[:50]
    right, holds = ((lead(model, at) < 0) == y for at in (originals(images, made), pixels / 255))
    assert record.robust.count == (right & holds).sum() < right.sum()
    assert record.valid and record.transferred
    assert "does not say on which model" in record.remarks[0]


def test_a_report_is_not_headed_by_a_set_made_elsewhere(tmp_path: Path) -> None:
    first, second = Linear(0), Linear(3)
    images = linear_images(second)
    made = make(tmp_path / "set.npz", second, images, Step(), LINF)
    (own,) = run(tmp_path, second, images, [Walk(steps=1)], LINF)
    strong = replace(made, record=None)
    (shown,) = run(tmp_path, second, images, [Fixed.of(strong, images)], LINF, ids=made.ids)
    assert shown.robust.count < own.robust.count
    (collected,) = collect([tmp_path])
    chosen = headline(collected)
    assert chosen is not None and chosen.record.hash == own.hash
    names = {row.attack: row.robust for row in rows(collected)}
    assert set(names) == {"walk", f"fixed images {made.digest}", "worst case"}
    # What breaks the model lies in the ball, wherever it comes from.
    assert names["worst case"] is not None
    assert names["worst case"].count <= shown.robust.count
    run(tmp_path, first, images, [Fixed.of(made, images)], LINF, ids=made.ids)
    (collected,) = collect([tmp_path])
    assert "step made on first" in {row.attack for row in rows(collected)}


ARRAYS = st.integers(1, 5).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2**40), min_size=n, max_size=n, unique=True),
        st.none() | st.lists(st.integers(0, 9), min_size=n, max_size=n),
        st.lists(st.floats(-3, 3, width=32), min_size=n * 4, max_size=n * 4),
    )
)


@given(arrays=ARRAYS)
@settings(max_examples=40, deadline=None)
def test_a_file_gives_back_what_was_written(
    arrays: tuple[list[int], list[int] | None, list[float]], tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("sets") / "set.npz"
    ids, labels, pixels = arrays
    made = AdversarialSet(
        np.array(ids),
        None if labels is None else np.array(labels),
        np.array(pixels, np.float32).reshape(-1, 1, 2, 2),
    )
    made.write(path)
    back = AdversarialSet.read(path)
    assert back.ids.tolist() == ids
    assert (back.labels if back.labels is None else back.labels.tolist()) == labels
    assert back.x_adv.tobytes() == made.x_adv.tobytes()
    assert back.digest == made.digest and len(made.digest) == 8
    other = replace(back, x_adv=np.nextafter(back.x_adv, np.float32(9)))
    assert other.digest != made.digest


X = np.zeros((2, 1, 2, 2), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "holds no array 'x_adv'"),
        ({"x_adv": X[0]}, r"x_adv is float32 \(1, 2, 2\), not images"),
        ({"x_adv": X[:0]}, "not images"),
        ({"x_adv": X.astype(int)}, "x_adv is int64"),
        ({"x_adv": X, "ids": [1]}, r"ids are int64 \(1,\)"),
        ({"x_adv": X, "ids": [1, 1]}, "each once"),
        ({"x_adv": X, "ids": [-1, 1]}, "from 0 on"),
        ({"x_adv": X, "labels": [0.5, 1]}, "labels are float64"),
        ({"x_adv": X, "record": "{"}, "is damaged"),
        ({"x_adv": X, "record": [1, 2]}, "is damaged"),
        ({"x_adv": X, "record": '{"schema": 1}'}, "is damaged: hash"),
        ({"x_adv": np.array([[["x"]]] * 2, dtype=object)}, "not a readable .npz file"),
    ],
)
def test_a_foreign_file_that_makes_no_sense(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(BadValueError, match=message) as refused:
        AdversarialSet.read(tmp_path / "set.npz")
    assert "\n" not in str(refused.value) and "set.npz" in str(refused.value)


def test_damaged_files_are_refused_in_a_line(tmp_path: Path) -> None:
    model, path = Linear(), tmp_path / "set.npz"
    made = make(path, model, linear_images(model), Idle(), LINF, limit=3)
    good, rng = path.read_bytes(), np.random.default_rng(0)
    refusals = 0
    for turn in range(150):
        data = bytearray(good[: rng.integers(len(good))] if turn % 3 == 0 else good)
        for place in rng.integers(len(data), size=turn % 3 * 4) if data else ():
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            assert len(AdversarialSet.read(path)) == len(made)
        except BadValueError as error:
            refusals += 1
            assert "\n" not in str(error) and "set.npz" in str(error)
    assert refusals > 100
    path.unlink()
    with pytest.raises(BadValueError, match="No such file"):
        AdversarialSet.read(path)


def test_a_record_of_a_newer_robustkit_is_refused(tmp_path: Path) -> None:
    model, path = Linear(), tmp_path / "set.npz"
    made = make(path, model, linear_images(model), Idle(), LINF, limit=3)
    assert made.record is not None
    replace(made, record=made.record.model_copy(update={"schema_version": 99})).write(path)
    with pytest.raises(BadValueError, match="schema 99, written by a newer robustkit"):
        AdversarialSet.read(path)
