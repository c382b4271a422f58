from __future__ import annotations

import math

import pytest
import torch
from attack_models import Affine, Recorder, affine, attacked, cnn, unboxed

from robustkit.attacks import square
from robustkit.attacks.patches import (
    PATCHES,
    Bumps,
    Windows,
    bump,
    mass,
    patch_side,
    pyramid,
    share,
)
from robustkit.attacks.square import Square
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim
from robustkit.threat import Norm, ThreatModel


@pytest.mark.parametrize(
    ("query", "p"),
    [(10, 0.8), (50, 0.4), (200, 0.2), (500, 0.1), (1000, 0.05), (2000, 0.025), (4000, 0.0125)],
)
def test_the_schedule_is_unscaled(query: int, p: float) -> None:
    assert share(query, 0.8) == pytest.approx(p)
    assert share(query + 1, 0.8) == pytest.approx(p / 2)
    assert share(0, 0.8) == 0.8


def test_patch_sides() -> None:
    image = torch.zeros(1, 1, 28, 28)
    sides = {
        norm: [patch_side(q, 0.8, image, ThreatModel(norm, 1)) for q in (0, 11, 501, 4001)]
        for norm in ("linf", "l2", "l1")
    }
    # round(28 sqrt(p)) for p = .8, .4, .05, .00625; in l2 and l1 at least 3 and odd
    odd = [25, 19, 7, 3]
    assert sides == {"linf": [25, 18, 6, 2], "l2": odd, "l1": odd}
    assert patch_side(4999, 0.01, image, ThreatModel("linf", 1)) == 1
    assert patch_side(0, 0.8, torch.zeros(1, 1, 2, 9), ThreatModel("l2", 1)) == 2


def test_windows_never_reach_the_last_offset() -> None:
    last = math.nextafter(1.0, 0.0)
    draws, sides = (
        torch.tensor([[0, 0], [last, last], [last, 0.5]]).float(),
        torch.tensor([3, 3, 6]),
    )
    draws = draws.clamp(max=1 - 2**-24)  # the largest that is ever drawn
    windows = Windows.drawn(draws, sides, torch.zeros(1, 1, 6, 9))
    assert windows.corner.tolist() == [[0, 0], [2, 5], [0, 1]]
    rows, columns = range(2, 5), range(5, 8)
    inside = torch.zeros(6, 9, dtype=torch.bool)
    inside[2:5, 5:8] = True
    assert torch.equal(windows.mask(torch.tensor(1)), inside.unsqueeze(0))
    assert windows.down[1].nonzero().flatten().tolist() == list(rows)
    assert windows.across[1].nonzero().flatten().tolist() == list(columns)


def test_l2_patches_by_hand() -> None:
    # Rings of height 1 + 1/4 in the middle and 1/4 around it, but for a row above only half.
    flat = torch.tensor([[0.25, 1.25, 0.25]])
    assert torch.allclose(pyramid(1, 3, 2), flat / flat.norm())
    tall = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
    assert torch.allclose(pyramid(2, 3, 2), tall / tall.norm())
    both = torch.cat((flat / flat.norm(), -tall / tall.norm())) / math.sqrt(2)
    assert torch.allclose(bump(3, 2), both)
    assert bump(1, 2).tolist() == [[-1.0]]


def asked(norm: Norm, queries: int, n: int = 128) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model, x, y = affine(3, n, (3, 10, 10))
    recorder = Recorder(model)
    attacked(Square(queries=queries), recorder, x, y, unboxed(norm, 0.1), drop=False)
    return x, recorder.asked


def test_linf_starts_from_stripes_and_moves_one_square_for_all_points() -> None:
    x, (start, first) = asked("linf", 1)
    delta = start - x
    assert torch.allclose(delta.abs(), torch.full_like(delta, 0.1), atol=1e-6)
    assert torch.allclose(delta, delta[:, :, :1].expand_as(delta), atol=1e-6)
    assert not torch.allclose(delta[0], delta[1], atol=1e-6)
    # The square's side is round(sqrt(.8) 10) = 9, its offset from [0, 1), its sign shared.
    square = (first - x)[..., :9, :9]
    assert torch.allclose(square, square[:1, :, :1, :1].expand_as(square), atol=1e-6)
    assert torch.allclose((first - start)[..., 9, :], torch.zeros(()), atol=1e-6)


def test_l2_starts_from_a_grid_of_patches_and_stays_on_the_sphere() -> None:
    x, (start, *more) = asked("l2", 30)
    for x_adv in (start, *more):
        sizes = (x_adv - x).flatten(1).norm(dim=1)
        assert torch.allclose(sizes, torch.full_like(sizes, 0.1), rtol=1e-4)
    # Cells of a 5 by 5 grid, all of one size, each the bump of side 2 or its mirror images.
    cells = (start - x).unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2)
    sizes = cells.norm(dim=-1)
    assert torch.allclose(sizes, torch.full_like(sizes, 0.1 / math.sqrt(75)), rtol=1e-3)
    shape = bump(2, 2).abs().flatten().sort().values
    assert torch.allclose(cells.abs().sort(-1).values / sizes.unsqueeze(-1), shape, atol=1e-3)


def test_a_pass_without_a_gradient_takes_twice_the_images_of_one_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CountingVictim, "most", lambda victim, x: 10)
    model, x, y = affine(3, 4, (3, 10, 10))
    recorder = Recorder(model)
    attacked(Square(queries=40), recorder, x, y, unboxed("linf", 1e-3), drop=False)
    assert max(map(len, recorder.asked)) == 20


QUERY = 600
"""At which squares of images of 20 x 20 have a side of 5."""


def bumps(norm: Norm, eps: float, x: torch.Tensor) -> Bumps:
    rng = PointRng(0, "square", torch.arange(len(x)))
    patches = PATCHES[norm](x, unboxed(norm, eps), rng, 5000, 0.8)
    assert isinstance(patches, Bumps)
    return patches


def proposal(patches: Bumps, x: torch.Tensor, x_adv: torch.Tensor) -> torch.Tensor:
    turns = torch.full((len(x), 1), QUERY)
    return patches.propose(x, x_adv, turns, torch.arange(len(x))).squeeze(1)


def places(patches: Bumps) -> tuple[torch.Tensor, torch.Tensor]:
    turn = torch.tensor(QUERY)
    return patches.to.mask(turn).squeeze(0), patches.origin.mask(turn).squeeze(0)


def test_l2_puts_what_two_squares_held_into_the_first() -> None:
    x = torch.zeros(4, 3, 20, 20)
    patches = bumps("l2", 1.0, x)
    start = patches.start(x)
    moved = proposal(patches, x, start)
    to, origin = places(patches)
    assert to.sum() == origin.sum() == 25 and not torch.equal(to, origin)
    rest, emptied = ~(to | origin), origin & ~to
    assert torch.allclose(moved[..., rest], start[..., rest], atol=1e-5)
    assert start[..., emptied].any() and not moved[..., emptied].any()
    assert torch.allclose(mass(moved, 2), mass(start, 2), rtol=1e-4)
    assert not torch.allclose(moved[..., to], start[..., to], atol=1e-3)


def test_l2_spends_what_is_left_of_eps() -> None:
    x = torch.zeros(1, 1, 20, 20)
    patches = bumps("l2", 1.0, x)
    start, (to, _) = patches.start(x), places(patches)
    shares = [
        proposal(patches, x, scale * start)[..., to].square().sum().item() for scale in (1.0, 0.5)
    ]
    assert shares[1] > shares[0] + 0.5


def test_bumps_lie_upright_or_on_their_side_with_a_sign_for_each_point_and_channel() -> None:
    """Where there was nothing before, what is put in a square is the bump alone."""
    x = torch.zeros(16, 3, 20, 20)
    patches = bumps("l2", 1.0, x)
    kinds = set()
    for query in range(595, 605):
        turns = torch.full((len(x), 1), query)
        moved = patches.propose(x, x, turns, torch.arange(len(x))).squeeze(1)
        square = moved[..., patches.to.mask(torch.tensor(query)).squeeze(0)].unflatten(-1, (5, 5))
        turned = bool(patches.form[query] % 2)
        shape = (bump(5, 2).T if turned else bump(5, 2)) / math.sqrt(3)
        sign = square[..., 0, 0].sign() * shape[0, 0].sign()
        assert torch.allclose(square, sign[..., None, None] * shape, atol=1e-5)
        assert len(sign.unique(dim=0)) > 2
        kinds.add(turned)
    assert kinds == {False, True}


def test_l1_patches_by_hand() -> None:
    # Rings of height 1 + 1/16 in the middle and 1/16 around it; both halves sum up to a half.
    flat, tall = torch.tensor([[1.0, 17, 1]]), torch.tensor([[1.0, 1, 1], [1, 17, 1]])
    assert torch.allclose(bump(3, 1), torch.cat((flat / 19, -tall / 22)) / 2)


def test_l1_starts_from_a_grid_that_is_only_ever_shrunk() -> None:
    x, rng = torch.full((4, 3, 10, 10), 0.5), PointRng(0, "square", torch.arange(4))

    def size(eps: float) -> torch.Tensor:
        start = PATCHES["l1"](x, ThreatModel("l1", eps), rng, 1, 0.8).start(x)
        return (start - x).abs().flatten(1).sum(1)

    # 25 patches of size 1 in each of 3 channels; pixels of the largest reach the box at a half.
    cell = bump(2, 1).abs().clamp(max=0.5).sum().item()
    assert torch.allclose(size(100), torch.full((4,), 75 * cell), rtol=1e-4)
    assert torch.allclose(size(7), torch.full((4,), 7.0), rtol=1e-5)
    assert (size(7) <= 7).all()


def test_l1_puts_what_two_squares_held_and_more_into_the_first() -> None:
    """By hand, one channel and then three: 3 in one square, 2 in the other, 100 allowed."""
    for c in (1, 3):
        x = torch.zeros(1, c, 20, 20)
        patches = bumps("l1", 100.0, x)
        (to, origin), delta = places(patches), torch.zeros_like(x)
        for mask, value in ((to, 3.0), (origin & ~to, -2.0)):
            row, column = mask.nonzero()[0].tolist()
            delta[..., row, column] = value
        turns, sign = torch.tensor([QUERY]), torch.ones(1, c, dtype=torch.long)
        moved = patches._gathered(delta, turns, sign)
        unused = 100 - delta.abs().sum()
        due = c * (delta[:, :1].abs().sum() + unused / c)
        assert torch.allclose(mass(moved * to, 1), due.expand(1, c, 1, 1), rtol=1e-4)
        assert torch.allclose(moved.abs().sum(), c * due, rtol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_looking_ahead_changes_nothing(norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proposals nor queries: patches behind one that helps are void."""
    model, x, y = cnn()
    threat = ThreatModel(norm, {"linf": 0.02, "l2": 0.2, "l1": 1.0}[norm])
    found, passes = [], []
    for rows, n in ((1, 64), (128, 64), (512, 64), (128, 5)):
        monkeypatch.setattr(square, "ROWS", rows)
        x_adv, victim = attacked(Square(queries=60), model, x[:n], y[:n], threat)
        found.append(x_adv)
        passes.append(victim.forwards)
    assert all(torch.equal(x_adv, found[0][: len(x_adv)]) for x_adv in found)
    assert all(torch.equal(spent, passes[0][: len(spent)]) for spent in passes)
    assert passes[0].max() == 61 and passes[0].min() < 61


def test_a_patch_that_changes_nothing_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: one pixel, worth less the darker it is, is asked at the end where it is not."""
    threat, queries = ThreatModel("linf", 0.125), 40
    x, y = torch.full((9, 1, 1, 1), 0.75), torch.zeros(9, dtype=torch.long)
    patches = PATCHES["linf"](x, threat, PointRng(0, "square", torch.arange(9)), queries, 0.8)
    dark, expected = patches.start(x).flatten() < 0.75, torch.ones(9)
    assert dark.any() and not dark.all()
    for bright in (patches.ends.flatten() > 0).tolist():
        expected += dark == bright
        dark |= not bright
    for few in (1, 64):
        monkeypatch.setattr(square, "ROWS", few)
        model = Affine(2, torch.ones(1))
        _, victim = attacked(Square(queries=queries), model, x, y, threat, drop=False)
        assert torch.equal(victim.forwards, expected)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 4), (1, 4, 9), (3, 14, 14), (1, 9, 5)])
def test_images_of_any_shape(shape: tuple[int, int, int], norm: Norm) -> None:
    model, x, y = affine(3, 3, shape)
    threat = unboxed(norm, 0.01)
    x_adv, _ = attacked(Square(queries=20), model, x, y, threat)
    assert (threat.size(x_adv - x) <= threat.eps + 1e-6).all()  # x is not in [0, 1]
    assert not torch.equal(x_adv, x)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_margin_only_ever_falls(norm: Norm) -> None:
    model, x, y = cnn()
    margins = []
    for queries in (1, 10, 40):
        threat = ThreatModel(norm, {"linf": 0.02, "l2": 0.2, "l1": 1.0}[norm])
        x_adv, _ = attacked(Square(queries=queries), model, x, y, threat, drop=False)
        logits = model(x_adv).detach()
        true = logits.gather(1, y.unsqueeze(1)).squeeze(1)
        margins.append(true - logits.scatter(1, y.unsqueeze(1), -torch.inf).amax(1))
    assert (margins[0] >= margins[1]).all() and (margins[1] >= margins[2]).all()
    assert (margins[0] > margins[2]).any()
