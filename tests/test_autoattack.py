from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pytest
import torch
from attack_models import affine, attacked, cnn, unboxed, wrong

from robustkit.attacks.apgd import APGDTargeted
from robustkit.attacks.autoattack import AutoAttack
from robustkit.attacks.pgd import PGD
from robustkit.attacks.search import Among
from robustkit.attacks.square import Square
from robustkit.engine.victim import CountingVictim
from robustkit.interfaces import Attack
from robustkit.threat import Norm, ThreatModel

Version = Literal["standard", "plus", "rand"]
BOTH: tuple[Norm, ...] = ("linf", "l2")
LINF = ThreatModel("linf", 0.1)


def test_standard_is_the_references_list_and_settings() -> None:
    assert [part.dump() for part in AutoAttack().parts(10, LINF)] == [
        {"name": "apgd-ce", "steps": 100, "restarts": 1, "rho": 0.75, "shrink": False, "eot": 1},
        {
            "name": "apgd-t",
            "steps": 100,
            "restarts": 1,
            "rho": 0.75,
            "shrink": False,
            "eot": 1,
            "targets": 9,
        },
        {
            "name": "fab-t",
            "steps": 100,
            "targets": 9,
            "alpha_max": 0.1,
            "eta": 1.05,
            "beta": 0.9,
        },
        {"name": "square", "queries": 5000, "p_init": 0.8},
    ]


def in_short(version: Version, norm: Norm) -> list[tuple[str, dict[str, object]]]:
    """Give each part's name and the options that are not its defaults."""
    parts = AutoAttack(version=version).parts(10, ThreatModel(norm, 1.0))
    return [
        (p.name, {k: v for k, v in p.dump().items() if v != type(p)().dump()[k]}) for p in parts
    ]


STAGED = {"shrink": True}
PLUS = [
    ("apgd-ce", {"restarts": 5}),
    ("apgd-dlr", {"restarts": 5}),
    ("fab", {"restarts": 5}),
    ("square", {}),
    ("apgd-t", {}),
    ("fab-t", {}),
]
RAND = [("apgd-ce", {"eot": 20}), ("apgd-dlr", {"eot": 20})]


def test_versions_are_the_references_lists_in_every_norm() -> None:
    assert in_short("standard", "l1") == [
        ("apgd-ce", {"restarts": 5} | STAGED),
        ("apgd-t", {"targets": 5} | STAGED),
        ("fab-t", {}),
        ("square", {}),
    ]
    for norm in BOTH:
        assert in_short("standard", norm) == [
            ("apgd-ce", {}),
            ("apgd-t", {}),
            ("fab-t", {}),
            ("square", {}),
        ]
    for norm in (*BOTH, "l1"):
        assert in_short("plus", norm) == PLUS
        assert in_short("rand", norm) == RAND


def test_rand_says_what_it_averages() -> None:
    (remark,) = AutoAttack(version="rand").remarks(10, LINF)
    assert remark.startswith("rand: losses and predictions are averaged over the 20 passes")
    assert len(AutoAttack(version="plus").remarks(2, LINF)) == 4


def test_remarks_say_what_few_classes_change() -> None:
    attack = AutoAttack()
    assert attack.remarks(10, LINF) == []
    assert attack.remarks(4, LINF) == [
        "apgd-t: 3 of 9 targets, for there are 4 classes",
        "fab-t: 3 of 9 targets, for there are 4 classes",
    ]
    assert attack.remarks(2, LINF) == [
        "apgd-t: 1 of 9 targets, for there are 2 classes",
        "apgd-t: its loss needs 4 classes and there are 2; "
        "the difference of the two logits is ascended, unscaled",
        "fab-t: 1 of 9 targets, for there are 2 classes",
    ]


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_few_classes_are_broken_just_beyond_the_radius_and_never_below(
    classes: int, norm: Norm
) -> None:
    model, x, y = affine(classes, 2, (1, 3, 3))
    x_adv, _ = attacked(AutoAttack(), model, x, y, unboxed(norm, 1.01 * model.radius(norm)))
    assert wrong(model, x_adv, y).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nothing_breaks_below_the_radius_and_all_parts_run(norm: Norm) -> None:
    model, x, y = affine(3, 2, (1, 3, 3))
    threat = unboxed(norm, 0.99 * model.radius(norm))
    x_adv, victim = attacked(AutoAttack(), model, x, y, threat)
    assert not wrong(model, x_adv, y).any()
    assert (threat.size(x_adv - x) <= threat.eps + threat.tolerance).all()
    # A clean pass and four looks, then each part: 101; 2 targets and the clean pass; 2 targets of
    # 100 steps of two passes and the clean one; 5001, but in linf for patches that change nothing.
    forwards = 1 + 4 + 101 + (1 + 2 * 101) + (1 + 2 * 200) + 5001
    assert victim.forwards.tolist() == [forwards, forwards] or norm == "linf"
    assert victim.backwards.tolist() == [101 + 2 * 101 + 2 * 100] * 2
    assert not victim.spread


def test_points_wrong_from_the_start_cost_one_pass() -> None:
    model, x, y = affine(4, 6, (1, 3, 3))
    x_adv, victim = attacked(AutoAttack(), model, x, 1 - y, unboxed("linf", 0.01))
    assert victim.forwards.tolist() == [1] * 6
    assert torch.equal(x_adv, x)


def test_later_parts_see_only_points_still_robust() -> None:
    model, x, y = cnn()
    _, victim = attacked(AutoAttack(), model, x[:4], y[:4], ThreatModel("linf", 0.3))
    assert (victim.forwards < 5000).all()


class Short(AutoAttack):
    def parts(self, classes: int, threat: ThreatModel) -> Sequence[Attack]:
        return PGD(steps=3), APGDTargeted(steps=5, targets=2), Square(queries=20)


def test_a_points_result_does_not_depend_on_the_others() -> None:
    model, x, y = cnn()
    threat, ids = ThreatModel("linf", 0.03), torch.arange(100, 164)
    whole, victim = attacked(Short(), model, x, y, threat, ids=ids)
    assert len(victim.forwards.unique()) > 3
    for rows in torch.arange(64).split(5):
        part, _ = attacked(Short(), model, x[rows], y[rows], threat, ids=ids[rows])
        assert torch.allclose(part, whole[rows], atol=1e-6)


def test_a_victim_among_others_counts_in_their_rows() -> None:
    model, x, y = affine(3, 5, (1, 3, 3))
    victim = CountingVictim(model, 5, x.device, drop=True)
    among = Among(victim, torch.tensor([1, 3, 4]))
    among(x[[1, 3, 4]])
    logits = among(x[[4]], torch.tensor([2]))
    assert victim.forwards.tolist() == [0, 1, 0, 1, 2]
    assert not victim.spread
    assert among.done(logits, 1 - y[[4]]).all()


def test_targeted_mode_reaches_the_target() -> None:
    model, x, y = cnn(3)
    target = (y[:6] + 1) % 3
    x_adv, _ = attacked(AutoAttack(), model, x[:6], y[:6], unboxed("linf", 2.0), target=target)
    assert torch.equal(model(x_adv).argmax(1), target)
