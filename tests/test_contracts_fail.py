"""A check that cannot fail is a defect: each fails on something broken on purpose."""

from __future__ import annotations

import math
from importlib import import_module

import pytest
from broken import BROKEN, Broken
from broken.datasets import HealthyData
from broken.losses import Counting, HealthyLoss, NoDefault

from robustkit.catalog import KIND_CLASSES, Catalog, Entry
from robustkit.errors import UnknownNameError
from robustkit.testing import (
    Check,
    ContractError,
    NotApplicableError,
    Subject,
    check,
    checks,
    parametrize_with_checks,
)
from robustkit.testing.bench import (
    RADIUS,
    conv_model,
    conv_points,
    linear_model,
    linear_points,
    nearest_classes,
)
from robustkit.testing.common import CHECKS as COMMON
from robustkit.threat import Norm, ThreatModel

for module in ("attacks", "losses", "trainers", "models", "datasets", "generators"):
    import_module(f"broken.{module}")

CHECKS = {(kind, one.name): one for kind in KIND_CLASSES for one in checks(kind)}


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_check_fails_on_the_broken_and_passes_on_its_healthy_sibling(broken: Broken) -> None:
    one = CHECKS[broken.kind, broken.check]
    one.run(broken.healthy)
    with pytest.raises(ContractError) as failure:
        one.run(broken.subject)
    message = str(failure.value)
    assert broken.message in message
    assert "\n" not in message


def test_every_check_has_something_broken() -> None:
    shown = {(broken.kind, broken.check) for broken in BROKEN}
    everywhere = {one.name for one in COMMON}
    asked = {(kind, name) for kind, name in CHECKS if name not in everywhere}
    assert asked <= shown
    assert everywhere <= {name for _, name in shown}


@pytest.mark.parametrize("kind", KIND_CLASSES)
def test_checks_have_names_of_their_own_and_a_description(kind: str) -> None:
    found = checks(kind)
    assert len({one.name for one in found}) == len(found)
    for one in found:
        assert one.description.endswith(".")


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'attack'"):
        checks("attacks")


def catalog_of(*names: str) -> Catalog:
    entries = [Entry("loss", n, f"broken.losses:{n}", "plugin", "dist 1") for n in names]
    return Catalog(entries={(entry.kind, entry.name): entry for entry in entries})


def test_check_names_what_fails_and_goes_on() -> None:
    results = check("loss", "Averaged", catalog_of("Averaged"))
    assert [r.check for r in results] == [one.name for one in checks("loss")]
    failed = {r.check: r.message for r in results if not r.ok}
    assert failed["one-a-point"] == "the loss has shape (), not (1,)"
    assert failed["named-as-registered"] == "it is registered as 'Averaged' and named 'healthy'"


def test_a_class_that_does_not_load_has_one_result() -> None:
    (result,) = check("loss", "Absent", catalog_of("Absent"))
    assert not result.ok
    assert result.check == "loads"
    assert "plugin 'plugin' (dist 1)" in result.message
    with pytest.raises(UnknownNameError):
        check("loss", "nowhere", catalog_of("Absent"))


@parametrize_with_checks([HealthyLoss, HealthyLoss(weight=2.0), Counting(), HealthyData])
def test_parametrised(component: Subject, check: Check) -> None:
    check.run(component)


def test_an_instance_is_checked_with_its_options() -> None:
    assert Subject.of(HealthyLoss(weight=2.0)).make().weight == 2.0


def test_options_that_lack_are_not_applicable() -> None:
    one = CHECKS["loss", "one-a-point"]
    with pytest.raises(NotApplicableError, match="needs power"):
        one.run(NoDefault)
    one.run(NoDefault(power=3))


def test_what_is_no_component_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown component 'int'"):
        parametrize_with_checks([int])  # type: ignore[list-item]


@pytest.mark.parametrize("norm", sorted(RADIUS))
def test_the_known_radius_is_where_the_steepest_step_breaks(norm: Norm) -> None:
    x, y = linear_points()
    nearest = nearest_classes(x, y)[:, 0]
    weight = linear_model()[1].weight.detach()
    gradient = (weight[nearest] - weight[y]).view_as(x)
    for share, broken in ((0.999, False), (1.001, True)):
        threat = ThreatModel(norm, share * RADIUS[norm], -math.inf, math.inf)
        x_adv = x + threat.eps * threat.steepest(gradient)
        assert ((linear_model()(x_adv).argmax(1) != y) == broken).all()
    assert (conv_model()(conv_points()[0]).argmax(1) == conv_points()[1]).all()
