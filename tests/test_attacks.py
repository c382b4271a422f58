from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from attack_models import Recorder, affine, attacked, cnn, unboxed, wrong
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustkit.attacks.apgd import APGD, APGDCE, APGDDLR, APGDTargeted
from robustkit.attacks.autoattack import AutoAttack
from robustkit.attacks.fab import FAB, FABTargeted
from robustkit.attacks.noise import RandomNoise
from robustkit.attacks.pgd import FGSM, PGD
from robustkit.attacks.square import Square
from robustkit.catalog import build
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim
from robustkit.errors import BadValueError, RobustkitError
from robustkit.interfaces import Attack
from robustkit.threat import Norm, ThreatModel

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
GRADIENT = [
    FGSM(),
    PGD(random_start=False),
    APGDCE(),
    APGDDLR(),
    APGDTargeted(),
    FAB(),
    FABTargeted(),
]
STAGED = APGDCE(steps=15, shrink=True)
SHORT: list[Attack] = [
    FGSM(random_start=True),
    PGD(steps=5, restarts=2),
    APGDCE(steps=10, restarts=2),
    STAGED,
    APGDDLR(steps=10),
    APGDTargeted(steps=10, targets=3),
    FAB(steps=5, restarts=2),
    FABTargeted(steps=5, targets=3),
    Square(queries=30),
]


def ids_of(attack: Attack) -> str:
    return repr(attack)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", GRADIENT, ids=ids_of)
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_affine_model_is_broken_just_beyond_its_radius(
    attack: Attack, classes: int, norm: Norm
) -> None:
    model, x, y = affine(classes, 6, (1, 8, 8))
    # Auto-PGD's steps in l1 never get sparser than two pixels; the nearest adversary is of one.
    beyond = 1.5 if norm == "l1" and isinstance(attack, APGD) else 1.01
    for factor, breaks in ((beyond, True), (0.99, False)):
        threat = unboxed(norm, factor * model.radius(norm))
        x_adv, _ = attacked(attack, model, x, y, threat)
        assert (wrong(model, x_adv, y) == breaks).all()
        assert (threat.size(x_adv - x) <= threat.eps + threat.tolerance).all()


@pytest.mark.parametrize("norm", NORMS)
def test_square_breaks_an_affine_model_well_beyond_its_radius_and_never_below(norm: Norm) -> None:
    model, x, y = affine(4, 8, (1, 8, 8))
    for factor, breaks in ((3, True), (0.99, False)):
        threat = unboxed(norm, factor * model.radius(norm))
        x_adv, _ = attacked(Square(queries=600), model, x, y, threat)
        assert (wrong(model, x_adv, y) == breaks).all()


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_fab_finds_the_distance_of_an_affine_model(norm: Norm, drop: bool) -> None:
    model, x, y = affine(10, 8, (1, 4, 4))
    threat = unboxed(norm, math.inf)
    x_adv, _ = attacked(FABTargeted(), model, x, y, threat, drop=drop)
    assert wrong(model, x_adv, y).all()
    found = threat.size(x_adv - x)
    assert torch.allclose(found, torch.full_like(found, model.radius(norm)), rtol=0.01)


def test_fab_gives_the_original_where_nothing_fits() -> None:
    model, x, y = affine(4, 8, (1, 4, 4))
    threat = unboxed("linf", 0.5 * model.radius("linf"))
    x_adv, _ = attacked(FABTargeted(), model, x, y, threat)
    assert torch.equal(x_adv, x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", SHORT, ids=ids_of)
def test_a_points_result_does_not_depend_on_the_others(attack: Attack, norm: Norm) -> None:
    model, x, y = cnn()
    threat = ThreatModel(norm, {"linf": 0.05, "l2": 0.4, "l1": 2.0}[norm])
    ids = torch.arange(100, 164)
    whole, victim = attacked(attack, model, x, y, threat, ids=ids)
    for size in (1, 7):
        for rows in torch.arange(64).split(size)[: 14 // size]:
            part, sole = attacked(attack, model, x[rows], y[rows], threat, ids=ids[rows])
            assert torch.allclose(part, whole[rows], atol=1e-6)
            assert torch.equal(sole.forwards, victim.forwards[rows])
    mixed = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled, _ = attacked(attack, model, x[mixed], y[mixed], threat, ids=ids[mixed])
    assert torch.allclose(shuffled, whole[mixed], atol=1e-6)
    assert 0 < wrong(model, whole, y).sum() < 64 or attack.name in ("square", "fgsm")


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(SHORT),
    st.sampled_from(NORMS),
    st.floats(0, 3),
    st.integers(0, 1000),
    st.booleans(),
)
def test_ball_and_box_are_never_left(
    attack: Attack, norm: Norm, eps: float, seed: int, drop: bool
) -> None:
    model, x, y = cnn(channels=3)
    model, x, y = model.float(), x[:9].float(), y[:9]
    x[0], x[1] = 0.0, 1.0
    threat = ThreatModel(norm, eps)
    x_adv, _ = attacked(attack, model, x, y, threat, seed=seed, drop=drop)
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype
    assert (threat.size(x_adv - x) <= eps + threat.tolerance).all()
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@pytest.mark.parametrize("attack", SHORT, ids=ids_of)
def test_no_eps_leaves_the_original(attack: Attack) -> None:
    model, x, y = cnn()
    x_adv, _ = attacked(attack, model, x, y, ThreatModel("linf", 0))
    assert torch.equal(x_adv, x)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", SHORT, ids=ids_of)
def test_points_already_wrong_stay_wrong(attack: Attack, norm: Norm) -> None:
    model, x, y = affine(4, 9, (1, 4, 4))
    x_adv, _ = attacked(attack, model, x, 1 - y, unboxed(norm, 0.001))
    assert wrong(model, x_adv, 1 - y).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("attack", SHORT, ids=ids_of)
def test_targeted_mode_reaches_the_target(attack: Attack, classes: int, norm: Norm) -> None:
    model, x, y = cnn(classes)
    target = (y + 1) % classes
    threat = unboxed(norm, 2.0 if norm == "linf" else 20.0)
    clean = (model(x).argmax(1) == target).sum()
    x_adv, _ = attacked(attack, model, x, y, threat, target=target)
    reached = model(x_adv).argmax(1) == target
    least = 0.5 if attack.name in ("square", "fgsm", "fab", "fab-t") else 0.9
    assert clean == 0 and reached.double().mean() > least
    assert (threat.size(x_adv - x) <= threat.eps + threat.tolerance).all()


@pytest.mark.parametrize(
    "attack", [a for a in SHORT if a.name != "fgsm" and a != STAGED], ids=ids_of
)
def test_evaluation_stops_at_success_and_training_does_not(attack: Attack) -> None:
    model, x, y = cnn()
    # In linf a patch may change nothing, and then it is not asked.
    threat = ThreatModel("l2", 1.0) if attack.name == "square" else ThreatModel("linf", 0.15)
    _, dropping = attacked(attack, model, x, y, threat)
    _, full = attacked(attack, model, x, y, threat, drop=False)
    assert not dropping.spread and not full.spread
    assert ((dropping.forwards > 1) & (dropping.forwards < 4)).any()
    assert (dropping.forwards <= full.forwards).all()
    assert (full.forwards == full.forwards[0]).all()
    if attack.name == "square":
        assert not full.backwards.any()


def test_square_never_asks_for_a_gradient() -> None:
    model, x, y = cnn()
    x_adv, victim = attacked(Square(queries=20), model, x, y, ThreatModel("l2", 0.1), drop=False)
    assert not victim.backwards.any() and not x_adv.requires_grad
    assert (victim.forwards == 21).all()


def test_pgd_in_training_gives_its_last_point() -> None:
    model, x, y = affine(3, 8, (1, 4, 4))
    recorder = Recorder(model)
    threat = unboxed("linf", 0.1)
    attack = PGD(steps=4, step_size=0.01)
    x_adv, _ = attacked(attack, recorder, x, y, threat, drop=False)
    assert len(recorder.asked) == 4
    side = torch.where(y == 0, -1.0, 1.0).view(-1, 1, 1, 1)
    step = 0.01 * (side * model.weight.detach().view(1, *x.shape[1:])).sign()
    last = threat.project(recorder.asked[-1] + step, x)
    assert torch.allclose(x_adv, last, atol=1e-6)


class Lottery(nn.Module):
    """Wrong only left of 0.3, with a loss that hardly says so: most starts never find it."""

    def forward(self, x: Tensor) -> Tensor:
        value = x.flatten(1)[:, 0]
        right = torch.where(value < 0.3, -1.0, 1.0 + 0.1 * (value - 0.6).square())
        return torch.stack((right, torch.zeros_like(right)), 1)


def test_restarts_keep_a_success_and_never_just_the_last() -> None:
    x = torch.full((64, 1, 1, 1), 0.5)
    y = torch.zeros(64, dtype=torch.long)
    threat = ThreatModel("linf", 0.4)
    found = []
    for restarts in range(1, 6):
        attack = PGD(steps=2, step_size=1e-3, restarts=restarts)
        x_adv, _ = attacked(attack, Lottery(), x, y, threat)
        found.append(wrong(Lottery(), x_adv, y))
    for fewer, more in pairwise(found):
        assert not (fewer & ~more).any()
    assert found[0].sum() < found[-1].sum()


def test_restarts_keep_the_highest_loss_where_none_succeeds() -> None:
    model, x, y = cnn()
    threat = ThreatModel("linf", 0.001)
    losses = []
    for restarts in (2, 3, 4):
        x_adv, _ = attacked(
            PGD(steps=1, step_size=1e-6, restarts=restarts), model, x, y, threat, drop=False
        )
        losses.append(nn.functional.cross_entropy(model(x_adv), y, reduction="none"))
    assert (losses[1] >= losses[0]).all() and (losses[2] >= losses[1]).all()
    assert (losses[2] > losses[0]).any()


def test_pgd_takes_soft_labels_and_any_loss() -> None:
    model, x, y = cnn()
    threat = ThreatModel("linf", 0.05)
    hard, _ = attacked(PGD(steps=3), model, x, y, threat, drop=False)
    soft = nn.functional.one_hot(y, 5).double()
    same, _ = attacked(PGD(steps=3), model, x, soft, threat, drop=False)
    assert torch.allclose(hard, same)
    other, _ = attacked(PGD(steps=3, loss="margin"), model, x, y, threat, drop=False)
    assert not torch.allclose(hard, other)


def test_starts_differ_by_restart_and_seed() -> None:
    model, x, y = cnn()
    threat = ThreatModel("linf", 0.1)
    one, _ = attacked(PGD(steps=1, step_size=1e-9), model, x, y, threat, drop=False)
    two, _ = attacked(PGD(steps=1, step_size=1e-9), model, x, y, threat, drop=False, seed=1)
    assert not torch.allclose(one, two, atol=1e-3)
    off = PGD(steps=1, step_size=1e-9, random_start=False)
    none, _ = attacked(off, model, x, y, threat, drop=False)
    assert torch.allclose(none, x, atol=1e-6)


def test_noise_fills_the_linf_ball_and_lies_on_the_l2_sphere() -> None:
    model, _, y = affine(3, 200, (1, 4, 4))
    x = torch.full((len(y), 1, 4, 4), 0.5)
    for norm, typical in (("linf", 0.05), ("l2", 0.1)):
        threat = ThreatModel(norm, 0.1)  # type: ignore[arg-type]
        noisy, victim = attacked(RandomNoise(), model, x, y, threat)
        size = threat.size(noisy - x)
        assert size.max() <= 0.1 + 1e-6 and size.min() > 0.06
        middle = (noisy - x).abs().mean() if norm == "linf" else size.mean()
        assert middle == pytest.approx(typical, rel=0.05)
        assert victim.forwards.sum() == 0
    assert not torch.equal(noisy, attacked(RandomNoise(), model, x, y, threat, seed=1)[0])


@pytest.mark.parametrize("attack", [*SHORT, AutoAttack()], ids=ids_of)
def test_no_norm_is_refused_in_one_line(attack: Attack) -> None:
    model, x, y = affine(3, 2, (1, 4, 4))
    with pytest.raises(BadValueError, match=f"'{attack.name}' does not work in norm 'none'"):
        attacked(attack, model, x, y, ThreatModel("none", 1.0))


def test_only_those_that_seek_the_smallest_take_an_unbounded_eps() -> None:
    model, x, y = affine(3, 2, (1, 4, 4))
    for attack in [*SHORT, AutoAttack()]:
        if attack.minimal:
            attacked(attack, model, x, y, ThreatModel("linf", math.inf))
            continue
        with pytest.raises(BadValueError, match="needs an eps"):
            attacked(attack, model, x, y, ThreatModel("linf", math.inf))


@pytest.mark.parametrize("attack", [*SHORT, AutoAttack()], ids=ids_of)
def test_attacks_are_in_the_catalogue_and_built_from_their_dump(attack: Attack) -> None:
    assert type(build("attack", attack.name)) is type(attack)
    assert build("attack", attack.dump()) == attack


@pytest.mark.parametrize(
    "table",
    [
        {"name": "pgd", "steps": 0},
        {"name": "pgd", "step_size": -1.0},
        {"name": "pgd", "stepsize": 0.1},
        {"name": "apgd-ce", "rho": 2},
        {"name": "square", "p_init": 0},
        {"name": "autoattack", "version": "weak"},
    ],
)
def test_bad_options_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(RobustkitError, match="option"):
        build("attack", table)


def test_a_single_point_of_a_single_pixel() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    for attack in SHORT:
        x_adv, _ = attacked(attack, model, x, y, ThreatModel("l2", 0.1))
        assert x_adv.shape == x.shape


def test_the_random_state_is_left_alone() -> None:
    model, x, y = cnn()
    for attack in SHORT:
        before = torch.random.get_rng_state()
        attacked(attack, model, x, y, ThreatModel("l2", 0.1))
        assert torch.equal(before, torch.random.get_rng_state())


def test_attacks_leave_their_input_alone() -> None:
    model, x, y = cnn()
    for attack in SHORT:
        for norm in NORMS:
            kept = x.clone()
            victim = CountingVictim(model, len(x), x.device, drop=True)
            rng = PointRng(0, attack.name, torch.arange(len(x)))
            attack.perturb(victim, x, y, ThreatModel(norm, 0.1), rng)
            assert torch.equal(x, kept)
