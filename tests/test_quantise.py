"""Verdicts on images that a file can hold: pixels k / 255, inside ball and box."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_parts import Linear, Step, Walk, linear_images, points_of, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustkit.attacks.pgd import PGD
from robustkit.data.images import ArrayImages, unit
from robustkit.engine.craft import craft
from robustkit.engine.identity import hash_module
from robustkit.engine.victim import CountingVictim, quantised
from robustkit.errors import BadValueError
from robustkit.interfaces import Victim
from robustkit.records import Threat
from robustkit.sets import AdversarialSet
from robustkit.threat import ThreatModel

NORMS = ("linf", "l2", "l1")


def held(x: Tensor, bits: int = 8) -> bool:
    """Say whether a file gives back the very pixels (N, ...)."""
    levels = 2**bits - 1
    return torch.equal((x * levels).round() / torch.tensor(float(levels)), x)


def points(seed: int, n: int, shape: tuple[int, ...]) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return unit(torch.randint(0, 256, (n, *shape), generator=generator)), generator


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), steps=st.floats(0, 40), far=st.floats(0.5, 3))
@settings(max_examples=60, deadline=None)
def test_what_lies_in_the_ball_stays_there(norm: str, seed: int, steps: float, far: float) -> None:
    threat = ThreatModel(norm, steps / 255, bits=8)
    x, generator = points(seed, 4, (2, 3, 3))
    x_adv = threat.project(x + far * threat.eps * torch.randn(x.shape, generator=generator), x)
    near = threat.quantise(x_adv, x)
    assert held(near)
    assert near.min() >= 0 and near.max() <= 1
    assert (threat.size(near.double() - x.double()) <= threat.eps + threat.tolerance).all()
    assert torch.equal(threat.quantise(near, x), near)
    # No pixel goes farther than to the one or the other side.
    assert ((near - x_adv).abs() < 1 / 255 + 1e-6).all() or norm == "linf"


@pytest.mark.parametrize("norm", NORMS)
@given(seed=st.integers(0, 10_000), steps=st.floats(0, 6))
@settings(max_examples=60, deadline=None)
def test_it_is_no_farther_than_rounding_towards_the_original(
    norm: str, seed: int, steps: float
) -> None:
    threat = ThreatModel(norm, steps / 255, bits=8)
    x, generator = points(seed, 3, (1, 2, 4))
    x_adv = threat.project(x + 2 * threat.eps * torch.randn(x.shape, generator=generator), x)
    wanted = 255 * (x_adv.double() - x.double())
    found = (255 * (threat.quantise(x_adv, x).double() - x.double())).round()
    off, towards = ((at - wanted).flatten(1).norm(dim=1) for at in (found, wanted.trunc()))
    assert (off <= towards + 1e-4).all()


def test_the_largest_grid_ball_by_hand() -> None:
    x = torch.full((1, 1, 1, 3), 100 / 255)
    x_adv = x + torch.tensor([0.1, -0.1, 0.6 / 255])
    near = ThreatModel("linf", 0.1, bits=8).quantise(x_adv, x)  # 25.5 steps
    assert (255 * (near - x)).round().flatten().tolist() == [25, -25, 1]
    # 1.6 and 0.6 round to 2 and 1: too far; 0.6 costs no less than 1.6, and gains less.
    threat = ThreatModel("l2", 2.1 / 255, bits=8)
    x_adv = x + torch.tensor([1.6, 0.6, -0.4]) / 255
    near = threat.quantise(x_adv, x)
    assert (255 * (near - x)).round().flatten().tolist() == [1, 1, 0]
    # In l1 both gain one, and the one that was nearer to the middle goes back.
    near = ThreatModel("l1", 2.6 / 255, bits=8).quantise(
        x + torch.tensor([1.7, 0.6, -0.3]) / 255, x
    )
    assert (255 * (near - x)).round().flatten().tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    "threat", [ThreatModel("l2", math.inf, bits=8), ThreatModel("none", 0, bits=8)]
)
def test_without_a_ball_the_nearest_is_taken(threat: ThreatModel) -> None:
    x, generator = points(0, 3, (1, 4, 4))
    x_adv = torch.rand(x.shape, generator=generator)
    near = threat.quantise(x_adv, x)
    assert held(near) and ((near - x_adv).abs() <= 0.5 / 255 + 1e-6).all()


def test_a_search_outside_the_ball_is_not_pulled_in() -> None:
    x, _ = points(0, 3, (1, 4, 4))
    for norm in NORMS:
        threat = ThreatModel(norm, 2 / 255, bits=8)
        x_adv = threat.clamp(x + 0.3)
        assert (threat.quantise(x_adv, x) - x_adv).abs().max() < 1 / 255 + 1e-6


def test_sixteen_bits_hold_what_eight_do() -> None:
    x, generator = points(0, 3, (1, 4, 4))
    threat = ThreatModel("linf", 0.1, bits=16)
    near = threat.quantise(x + 0.1 * torch.randn(x.shape, generator=generator), x)
    assert held(near, 16) and not held(near, 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"bits": 8, "low": -math.inf, "high": math.inf},
            r"pixels in .0, 1. only; the box is \[-inf, inf\]",
        ),
        ({"bits": 8, "low": -1.0, "high": 1.0}, r"the box is \[-1, 1\]"),
        ({"bits": 0}, "0 bits"),
        ({"bits": 17}, "17 bits"),
    ],
)
def test_bits_that_make_no_sense(options: dict[str, float], said: str) -> None:
    with pytest.raises(BadValueError, match=said):
        ThreatModel("linf", 0.1, **options)


def test_a_threat_says_its_bits() -> None:
    threat = ThreatModel("linf", 8 / 255, bits=8)
    assert str(threat) == "linf 8/255, 8 bits"
    assert Threat.of(threat).model() == threat
    old = Threat.model_validate_json('{"norm": "linf", "eps": 0.1, "low": 0.0, "high": 1.0}')
    assert old.model() == ThreatModel("linf", 0.1)


class Seen(nn.Module):
    """Keeps what it is shown."""

    def forward(self, x: Tensor) -> Tensor:
        self.x = x.detach()
        return x.flatten(1)[:, :2] * 3


def test_the_model_sees_files_and_the_gradient_passes() -> None:
    x, _ = points(0, 9, (1, 2, 2))
    threat, model = ThreatModel("linf", 2 / 255, bits=8), Seen()
    victim = CountingVictim(model, 9, x.device, drop=True, view=quantised(threat, x))
    rows = torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])
    x_adv = (x[rows] + 1.3 / 255).requires_grad_()
    logits = victim(x_adv, rows)
    assert torch.equal(model.x, threat.quantise(x_adv.detach(), x[rows]))
    assert held(model.x)
    (gradient,) = torch.autograd.grad(logits.sum(), x_adv)
    assert gradient.flatten(1)[:, 0].tolist() == [3.0] * 8
    victim(x + 0.01)
    assert held(model.x)
    victim(x[:8] + 0.01)  # whose points these are is not said
    assert held(model.x)


class Cleft(nn.Module):
    """Wrong about grey levels from 103.1 to 103.3, which no file holds, and from 107.8 on."""

    def forward(self, x: Tensor) -> Tensor:
        level = 255 * x.flatten(1)[:, 0]
        wrong = torch.maximum(torch.minimum(level - 103.1, 103.3 - level), level - 107.8)
        return torch.stack((-wrong, wrong), 1)


class Climb(Step):
    """Brighter by 0.4 levels each time, for as long as the model holds."""

    name = "climb"

    def perturb(
        self, victim: Victim, x: Tensor, y: Tensor, threat: ThreatModel, *rest: Any, **more: Any
    ) -> Tensor:
        x_adv, rows = x.clone(), torch.arange(len(x))
        for _ in range(25):
            over = victim.done(victim(x_adv, rows), y)
            x_adv[~over] = threat.project(x_adv[~over] + 0.4 / 255, x[~over])
        return x_adv


def grey(n: int = 20) -> ArrayImages:
    return ArrayImages(np.full((n, 1, 2, 2), 100, np.uint8), np.zeros(n, np.int64), ["a", "b"])


def test_a_search_goes_on_where_only_the_point_between_files_is_wrong(tmp_path: Path) -> None:
    model, images = Cleft(), grey()
    threat = ThreatModel("linf", 9 / 255)
    (plain,) = run(tmp_path, model, images, [Climb()], threat)
    (filed,) = run(tmp_path, model, images, [Climb()], ThreatModel("linf", 9 / 255, bits=8))
    assert plain.robust.count == filed.robust.count == 0
    assert plain.hash != filed.hash
    sizes = [points_of(tmp_path, record).sizes for record in (plain, filed)]
    assert sizes[0] * 255 == pytest.approx(np.full(20, 3.2), abs=0.01)
    assert sizes[1] * 255 == pytest.approx(np.full(20, 8), abs=1e-3)
    (short,) = run(tmp_path, model, images, [Climb()], ThreatModel("linf", 7 / 255, bits=8))
    assert short.robust.count == 20


@pytest.mark.parametrize("norm", NORMS)
def test_verdicts_are_of_files(norm: str, tmp_path: Path) -> None:
    model = Linear()
    images, eps = linear_images(model), {"linf": 1.5 / 255, "l2": 3.3 / 255, "l1": 7 / 255}[norm]
    (plain,) = run(tmp_path, model, images, [Step()], ThreatModel(norm, eps))
    (filed,) = run(tmp_path, model, images, [Step()], ThreatModel(norm, eps, bits=8))
    assert filed.valid and filed.robust.count >= plain.robust.count
    assert str(filed.threat.model()).endswith(", 8 bits")
    found = points_of(tmp_path, filed)
    sizes = found.sizes[found.broken_by == 0] * 255
    if norm != "l2":
        assert np.allclose(sizes, sizes.round(), atol=1e-3)
    if norm == "linf":
        exact = run(tmp_path, model, images, [Step()], ThreatModel(norm, 1 / 255))[0]
        assert np.array_equal(found.robust, points_of(tmp_path, exact).robust)


def test_verdicts_on_files_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    model = Linear()
    images, threat = linear_images(model), ThreatModel("l2", 9 / 255, bits=8)
    tables = []
    for size in (7, 64, 200):
        (record,) = run(tmp_path / str(size), model, images, [Walk()], threat, batch_size=size)
        tables.append(points_of(tmp_path / str(size), record).broken_by.tolist())
    assert tables[0] == tables[1] == tables[2] and 0 in tables[0] and -1 in tables[0]


def test_a_set_of_files_survives_being_saved(tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    made = craft(
        model,
        images,
        PGD(steps=5),
        ThreatModel("l2", 0.02, bits=8),
        out=tmp_path / "set.npz",
        model_name="model",
        model_hash=hash_module(model),
        data={"name": "test"},
        device="cpu",
    )
    assert held(torch.from_numpy(made.x_adv))
    back = AdversarialSet.read(tmp_path / "set.npz")
    assert back.record is not None and back.record.threat.bits == 8


def test_originals_between_the_levels_are_refused(tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    with pytest.raises(BadValueError, match="4-bit images do not hold the originals") as refused:
        run(tmp_path, model, images, [Step()], ThreatModel("linf", 0.1, bits=4))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "eval").exists()
