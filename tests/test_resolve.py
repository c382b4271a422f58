"""From names and settings to a recipe that says everything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustkit import recipe as recipes
from robustkit.catalog import installed
from robustkit.engine.journal import first_difference
from robustkit.engine.resolve import resolve, start
from robustkit.errors import BadValueError, UnknownNameError

ADVERSARIAL: dict[str, Any] = {"trainer": "adversarial"}


@pytest.mark.parametrize("entry", installed().of_kind("recipe"), ids=lambda e: e.name)
def test_every_recipe_resolves_to_one_that_resolves_to_itself(entry: Any) -> None:
    table = start(entry.name)
    needs_path = table.get("data", {}).get("name") in ("folder", "npz")
    recipe, _ = resolve(table, [("data.path", "somewhere")] if needs_path else [])
    assert recipe.title
    assert recipe.source
    again, _ = resolve(recipes.parse(recipes.write(recipe), "test"))
    assert again == recipe
    assert first_difference(again.dump(), recipe.dump()) is None


def test_every_option_is_written_out() -> None:
    recipe, built = resolve(ADVERSARIAL)
    assert recipe.trainer == built.trainer.dump()  # type: ignore[union-attr]
    assert recipe.trainer["attack"]["loss"]["name"] == "cross-entropy"
    assert recipe.model["name"] == "cnn"
    assert recipe.select.attack["steps"] == 10


def test_settings_reach_components_the_recipe_leaves_to_their_defaults() -> None:
    recipe, built = resolve(
        ADVERSARIAL,
        [("attack.loss.label_smoothing", 0.1), ("attack.steps", 3), ("fit.epochs", 2)],
    )
    assert built.trainer.attack.steps == 3  # type: ignore[union-attr]
    assert recipe.trainer["attack"]["loss"]["label_smoothing"] == 0.1  # type: ignore[index]
    assert recipe.fit.epochs == 2


@pytest.mark.parametrize("spelling", ["attack", "attack.name", "trainer.attack"])
def test_a_name_brings_its_own_options(spelling: str) -> None:
    recipe, _ = resolve(
        {"trainer": {"name": "adversarial", "attack": {"name": "pgd", "steps": 3}}},
        [("attack.random_start", True), (spelling, "fgsm")],
    )
    attack = recipe.trainer["attack"]  # type: ignore[index]
    assert attack["name"] == "fgsm"
    assert attack["random_start"] is True
    assert "steps" not in attack


def test_the_losses_of_a_loss_are_reached() -> None:
    recipe, _ = resolve(
        {"trainer": "standard"}, [("loss", "two-phase"), ("loss.main.penalty", 1.5)]
    )
    main = recipe.trainer["loss"]["main"]  # type: ignore[index]
    assert main["action"] == "greedy"
    assert main["penalty"] == 1.5


def test_an_option_that_a_setting_must_give() -> None:
    recipe, _ = resolve(ADVERSARIAL, [("data.path", "somewhere"), ("data.name", "npz")])
    assert recipe.data["path"] == "somewhere"
    with pytest.raises(BadValueError, match="path"):
        resolve(ADVERSARIAL, [("data.name", "npz")])


def test_the_papers_penalty_on_the_default_recipe() -> None:
    recipe, _ = resolve(start("policy-gradient"), [("loss.penalty", 1.25)])
    assert recipe.trainer["loss"]["penalty"] == 1.25  # type: ignore[index]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("attack.step", 3, "did you mean 'steps'"),
        ("atack.steps", 3, "did you mean 'attack'"),
        ("fit.epoch", 3, "did you mean 'fit.epochs'"),
        ("model.wdth", 3, "did you mean 'width'"),
        ("attack.name", "pdg", "did you mean 'pgd'"),
        ("trainer", "adverserial", "did you mean 'adversarial'"),
        ("model", "lenet", "did you mean 'lenet5'"),
        ("attack.name", "PGD", "did you mean 'pgd'"),
        ("attack.name", "mi", "did you mean 'mi-fgsm' or 'vmi-fgsm'"),
        ("attack.name", "qq", "known: adv-alpha"),
    ],
)
def test_unknown_names_offer_the_nearest(path: str, value: object, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message) as caught:
        resolve(ADVERSARIAL, [(path, value)])
    assert "\n" not in str(caught.value)


def test_bad_values_name_the_option() -> None:
    with pytest.raises(BadValueError, match="steps"):
        resolve(ADVERSARIAL, [("attack.steps", 0)])
    with pytest.raises(BadValueError, match="attack"):
        resolve(ADVERSARIAL, [("attack", 3)])


def test_start_prefers_the_recipe_of_the_data_set() -> None:
    assert start("policy-gradient", "mnist") == recipes.parse(
        installed().text("recipe", "policy-gradient-mnist"), "test"
    )
    assert start("policy-gradient", "digits")["data"]["name"] == "digits"
    with pytest.raises(UnknownNameError, match="policy-gradient"):
        start("policy-gradent")


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.floats(0.01, 0.5), st.sampled_from(["linf", "l2"]), st.booleans())
def test_resolving_twice_changes_nothing(steps: int, eps: float, norm: str, start: bool) -> None:
    choice = [
        ("attack.steps", steps),
        ("threat.eps", eps),
        ("threat.norm", norm),
        ("attack.random_start", start),
    ]
    once, _ = resolve(ADVERSARIAL, choice)
    twice, _ = resolve(once.dump())
    assert once == twice
