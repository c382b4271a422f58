"""Promise 1: what an attack proposes counts only as far as it holds when asked afresh."""

from __future__ import annotations

import math

import pytest
import torch
from eval_parts import Linear, linear_images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustkit.engine.verdict import CHUNK, Judge, exact, require_float32, seeded
from robustkit.errors import BadValueError
from robustkit.threat import ThreatModel

NORMS = ("linf", "l2", "l1")


@pytest.fixture
def scene() -> tuple[Linear, Tensor, Tensor, Tensor]:
    """A linear model, images, its predictions, and the direction that lowers each one's lead."""
    model = Linear()
    images = linear_images(model, wrong=1)
    x = images.take(torch.arange(100)).float() / 255
    y = model(x).argmax(1)
    sign = 1 - 2 * y.float()
    gradient = -sign[:, None] * model.w.detach()
    return model, x, y, gradient.view_as(x)


@pytest.mark.parametrize("norm", NORMS)
def test_broken_exactly_within_the_known_radius(norm: str, scene: tuple[Linear, ...]) -> None:
    model, x, y, gradient = scene
    radius = model.radius(x, norm)
    threat = ThreatModel(norm, float(radius.median()))
    proposal = x + threat.eps * threat.steepest(gradient)
    verdicts = Judge(model, 0).decide(proposal, x, y, threat)
    clear = (radius - threat.eps).abs() > 1e-5
    assert torch.equal(verdicts.broken[clear], (radius < threat.eps)[clear])
    assert 0 < verdicts.broken.sum() < len(x)
    assert not verdicts.rejected.any()
    assert verdicts.sizes[verdicts.broken].tolist() == pytest.approx(
        [threat.eps] * int(verdicts.broken.sum()), rel=1e-5
    )
    assert verdicts.sizes[~verdicts.broken].isnan().all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("factor", "rejected"), [(1 + 5e-6, False), (1 + 1e-3, True), (2, True)])
def test_rounding_is_mended_and_more_is_rejected(
    norm: str, factor: float, rejected: bool, scene: tuple[Linear, ...]
) -> None:
    model, x, y, gradient = scene
    threat = ThreatModel(norm, 0.2)
    proposal = x + factor * threat.eps * threat.steepest(gradient)
    verdicts = Judge(model, 0).decide(proposal, x, y, threat)
    assert verdicts.rejected.all() == verdicts.rejected.any() == rejected
    sizes = threat.size(verdicts.x_adv.double() - x.double())
    assert (sizes <= threat.eps + 1e-7).all()
    if rejected:
        assert not verdicts.broken.any()
        assert torch.equal(verdicts.x_adv, x)
        assert verdicts.largest == pytest.approx(factor * threat.eps, rel=1e-4)
    else:
        assert verdicts.broken.any()
        assert math.isnan(verdicts.largest)


def test_what_only_rounding_broke_is_not_broken() -> None:
    """The border lies between eps and eps plus the tolerance: mended, the point is robust."""
    eps = 0.1

    class Cliff(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            over = (x.flatten(1)[:, 0].double() - 0.5 - eps - 5e-7).float()
            return torch.stack((-over, over), 1)

    x, y, threat = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3).long(), ThreatModel("linf", eps)
    proposal = x + (eps + 9e-7)
    assert Cliff()(proposal).argmax(1).tolist() == [1, 1, 1]
    verdicts = Judge(Cliff(), 0).decide(proposal, x, y, threat)
    assert not verdicts.rejected.any()
    assert not verdicts.broken.any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_rejected(value: float, scene: tuple[Linear, ...]) -> None:
    model, x, y, gradient = scene
    threat = ThreatModel("linf", 0.2)
    proposal = x + threat.eps * gradient.sign()
    proposal[3, 0, 0, 0] = value
    verdicts = Judge(model, 0).decide(proposal, x, y, threat)
    assert verdicts.rejected.nonzero().flatten().tolist() == [3]
    assert not verdicts.broken[3]
    assert torch.equal(verdicts.x_adv[3], x[3])


def test_the_box_is_clamped_to(scene: tuple[Linear, ...]) -> None:
    model, x, y, gradient = scene
    verdicts = Judge(model, 0).decide(x + 2 * gradient.sign(), x, y, ThreatModel("linf", 1.0))
    assert not verdicts.rejected.any()
    assert verdicts.x_adv.min() >= 0 and verdicts.x_adv.max() <= 1
    open_box = ThreatModel("linf", 1.0, -math.inf, math.inf)
    verdicts = Judge(model, 0).decide(x + 2 * gradient.sign(), x, y, open_box)
    assert verdicts.rejected.all()


@pytest.mark.parametrize("threat", [ThreatModel("none", 0), ThreatModel("l2", math.inf)])
def test_without_a_ball_nothing_is_too_far(threat: ThreatModel, scene: tuple[Linear, ...]) -> None:
    model, x, y, gradient = scene
    verdicts = Judge(model, 0).decide(x + gradient.sign(), x, y, threat)
    assert verdicts.broken.all()


@given(st.integers(1, 3 * CHUNK), st.integers(0, 2**20))
@settings(deadline=None)
def test_predictions_do_not_depend_on_the_others(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model = Linear(seed)
    x = torch.rand(3 * CHUNK, 1, 4, 4, generator=generator)
    y = torch.zeros(len(x), dtype=torch.int64)
    chosen = torch.randperm(len(x), generator=generator)[:n]
    judge = Judge(model, 0)
    assert torch.equal(judge.predict(x, y)[chosen], judge.predict(x[chosen], y[chosen]))


def test_no_images_no_predictions() -> None:
    assert Judge(Linear(), 0).predict(torch.zeros(0, 1, 4, 4), torch.zeros(0).long()).shape == (0,)


def test_nan_is_wrong_whatever_the_label() -> None:
    class Blank(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), math.nan)

    y = torch.tensor([0, 1, 2])
    assert (Judge(Blank(), 0).predict(torch.zeros(3, 1, 2, 2), y) != y).all()


class Coin(nn.Module):
    """Says class 0 with a chance of `x`, else class 1; `calls` passes were asked of it."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        first = (torch.rand(len(x)) < x.flatten(1)[:, 0]).float()
        return torch.stack((first, 1 - first), 1)


def test_a_randomised_model_is_judged_by_plurality() -> None:
    x, y = torch.tensor([1.0, 0.9, 0.1, 0.0]).view(-1, 1, 1, 1), torch.zeros(4).long()
    model = Coin()
    assert Judge(model, 0, rounds=10).predict(x, y).tolist() == [0, 0, 1, 1]
    assert model.calls == 10


def test_a_tie_counts_against_the_model() -> None:
    class Alternates(Coin):
        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return torch.eye(2)[self.calls % 2].expand(len(x), 2)

    y = torch.tensor([0, 1])
    assert (Judge(Alternates(), 0, rounds=10).predict(torch.zeros(2, 1, 1, 1), y) != y).all()


def test_seeded_passes_repeat_and_leave_the_users_stream_alone() -> None:
    x, y = torch.full((200, 1, 1, 1), 0.5), torch.zeros(200).long()
    torch.manual_seed(7)
    one = Judge(Coin(), 3).predict(x, y)
    after = torch.rand(1)
    two = Judge(Coin(), 3).predict(x, y)
    assert torch.equal(one, two)
    assert not torch.equal(one, Judge(Coin(), 4).predict(x, y))
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))


def test_seeds_tell_keys_apart() -> None:
    def draw(*key: object) -> float:
        with seeded(torch.device("cpu"), *key):
            return float(torch.rand(1))

    assert draw("a", 1) == draw("a", 1) != draw("a", 2)


def test_exact_arithmetic_undoes_what_the_user_chose_and_puts_it_back() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = (matmul.fp32_precision, cudnn.benchmark)
    matmul.fp32_precision, cudnn.benchmark = "tf32", True
    x = torch.rand(8, 8)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (x @ x).dtype == torch.bfloat16
            with exact():
                assert (x @ x).dtype == torch.float32
                assert (matmul.fp32_precision, cudnn.benchmark) == ("ieee", False)
                assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert (matmul.fp32_precision, cudnn.benchmark) == ("tf32", True)
    finally:
        matmul.fp32_precision, cudnn.benchmark = before


def test_half_precision_is_refused_by_name() -> None:
    require_float32(Linear())
    with pytest.raises(BadValueError, match=r"'w' is float16.*model\.float\(\)"):
        require_float32(Linear().half())
