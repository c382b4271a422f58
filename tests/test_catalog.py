"""Plugins found, clashes refused, broken ones set aside: on real distributions in a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
from pydantic import Field

import robustkit as rk
from robustkit import catalog as catalog_module
from robustkit.catalog import Catalog, discover
from robustkit.errors import BadValueError, BrokenPluginError, RobustkitError, UnknownNameError

Install = Callable[..., None]

PLUGIN = """
from robustkit import Attack, hookimpl
from pydantic import Field

class Shift(Attack):
    "Shift every pixel."
    name = "{name}"
    steps: int = Field(default=3, ge=1, description="steps")

@hookimpl
def register_attacks():
    return {{"{name}": "{module}:Shift"}}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    monkeypatch.syspath_prepend(tmp_path)

    def add(distribution: str, plugin: str, module: str, code: str) -> None:
        info = tmp_path / f"{distribution}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[robustkit]\n{plugin} = {module}\n")
        (tmp_path / f"{module}.py").write_text(code)

    yield add
    for module in tmp_path.glob("*.py"):
        sys.modules.pop(module.stem, None)


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., Catalog]:
    def discover_here(only: list[str] | None = None) -> Catalog:
        points = [p for d in distributions(path=[str(tmp_path)]) for p in d.entry_points]
        return discover(points, only)

    return discover_here


def one_line(error: pytest.ExceptionInfo[RobustkitError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_plugin_of_another_distribution_is_found(install: Install, found) -> None:
    install(
        "robustkit-shift",
        "shift",
        "shift_plugin",
        PLUGIN.format(name="shift", module="shift_plugin"),
    )
    catalog = found()
    assert catalog.problems == []
    assert catalog.plugins == {"shift": "robustkit-shift 1.0"}
    built = catalog.build("attack", {"name": "shift", "steps": 5})
    assert built.dump() == {"name": "shift", "steps": 5}


def test_two_entry_points_of_one_name_are_both_refused(install: Install, found) -> None:
    for n in (1, 2):
        install(
            f"dist-{n}", "shift", f"shift{n}", PLUGIN.format(name=f"shift{n}", module=f"shift{n}")
        )
    install("dist-3", "fine", "fine", PLUGIN.format(name="fine", module="fine"))
    catalog = found()
    (problem,) = catalog.problems
    assert "dist-1 1.0 and dist-2 1.0" in str(problem)
    assert [e.name for e in catalog.of_kind("attack")] == ["fine"]


def test_two_components_of_one_kind_and_name_disable_that_name_alone(
    install: Install, found
) -> None:
    for n in (1, 2):
        code = PLUGIN.format(name="shift", module=f"shift{n}").replace(
            "return {", f'return {{"own{n}": "shift{n}:Shift", '
        )
        install(f"dist-{n}", f"plugin{n}", f"shift{n}", code)
    catalog = found()
    assert [e.name for e in catalog.of_kind("attack")] == ["own1", "own2"]
    with pytest.raises(BrokenPluginError) as error:
        catalog.build("attack", "shift")
    assert "dist-1 1.0" in one_line(error)
    assert "dist-2 1.0" in one_line(error)
    assert len(catalog.problems) == 2


def test_an_attack_and_a_trainer_may_share_a_name(install: Install, found) -> None:
    code = PLUGIN.format(name="shift", module="both") + (
        "\n@hookimpl\ndef register_trainers():\n    return {'shift': 'both:Other'}\n"
    )
    install("dist", "both", "both", code)
    assert [e.kind for e in found().named("shift")] == ["attack", "trainer"]


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        ("import not_there_at_all", "ModuleNotFoundError", "python -c"),
        ("raise ValueError('two\\nlines')", "ValueError: two", "python -c"),
        ("import sys; sys.exit(3)", "SystemExit", "python -c"),
        (
            "from robustkit import hookimpl\n@hookimpl\ndef register_atacks():\n    return {}",
            "unknown hook 'register_atacks'",
            "did you mean 'register_attacks'",
        ),
        (
            "from robustkit import hookimpl\n@hookimpl\ndef register_attacks():\n    return ['a']",
            "register_attacks returned list",
            "module:Class",
        ),
        (
            "from robustkit import hookimpl\n@hookimpl\ndef register_attacks():\n    return {'a': 1}",
            "register_attacks returned dict",
            "module:Class",
        ),
        (
            "from robustkit import hookimpl\n@hookimpl\ndef register_attacks():\n    return 1 / 0",
            "register_attacks raised ZeroDivisionError",
            "dict",
        ),
    ],
)
def test_a_broken_plugin_is_set_aside_and_the_others_work(
    install: Install, found, code: str, reason: str, hint: str
) -> None:
    install("broken-dist", "broken", "broken_plugin", code)
    install("dist", "fine", "fine", PLUGIN.format(name="fine", module="fine"))
    catalog = found()
    (problem,) = catalog.problems
    assert reason in str(problem)
    assert hint in str(problem)
    assert "broken-dist 1.0" in str(problem)
    assert "\n" not in str(problem)
    assert catalog.build("attack", "fine").steps == 3


def test_a_subset_of_plugins(install: Install, found) -> None:
    for name in ("one", "two"):
        install(f"dist-{name}", name, name, PLUGIN.format(name=name, module=name))
    assert list(found(["two"]).plugins) == ["two"]
    assert list(found([]).plugins) == []
    with pytest.raises(UnknownNameError, match="did you mean 'two'.*ROBUSTKIT_PLUGINS"):
        found(["twoo"])


def test_a_class_that_does_not_import_or_fit_is_named_with_its_owner(
    install: Install, found
) -> None:
    code = PLUGIN.format(name="shift", module="shift") + (
        "\n@hookimpl\ndef register_losses():\n"
        "    return {'gone': 'shift:Gone', 'wrong': 'shift:Shift'}\n"
    )
    install("dist", "shift", "shift", code)
    for name, text in (("gone", "does not import"), ("wrong", "not a subclass of robustkit.Loss")):
        with pytest.raises(BrokenPluginError, match=text) as error:
            found().build("loss", name)
        assert "plugin 'shift' (dist 1.0)" in one_line(error)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("shif", "did you mean 'shift'"),
        ({"name": "shift", "step": 3}, "unknown option 'step'; did you mean 'steps'"),
        ({"name": "shift", "steps": 0}, "option 'steps' of attack 'shift' is 0"),
        ({"name": "shift", "steps": "ten"}, "option 'steps' of attack 'shift' is 'ten'"),
        ({"steps": 3}, "give a name"),
        (3, "give a name"),
    ],
)
def test_bad_components_are_one_line(install: Install, found, value: object, text: str) -> None:
    install("dist", "shift", "shift", PLUGIN.format(name="shift", module="shift"))
    with pytest.raises(RobustkitError, match=text) as error:
        found().build("attack", value)
    one_line(error)


class Inner(rk.Attack):
    """An attack with an option."""

    name = "inner"
    steps: int = Field(default=3, ge=1, description="steps")


class Outer(rk.Trainer):
    """A trainer with a nested attack."""

    name = "outer"
    attack: rk.Attack = rk.slot("inner", "inner attack")
    spare: rk.Attack | None = rk.slot(None, "another")


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Catalog:
    entries = {
        (kind, name): catalog_module.Entry(kind, name, f"{__name__}:{cls}", "test", "test 1")
        for kind, name, cls in (("attack", "inner", "Inner"), ("trainer", "outer", "Outer"))
    }
    catalog = Catalog(entries=entries)
    monkeypatch.setattr(catalog_module, "installed", lambda: catalog)
    return catalog


def test_nested_components_resolve_by_name_table_or_instance(own: Catalog) -> None:
    assert Outer().attack == Inner()
    assert Outer(attack={"name": "inner", "steps": 9}).attack.steps == 9
    assert Outer(attack=Inner(steps=4)).attack.steps == 4
    assert Outer(spare="inner").spare == Inner()
    assert Outer().attack is not Outer().attack
    with pytest.raises(UnknownNameError, match="did you mean 'inner'"):
        Outer(attack="iner")


def test_build_of_dump_is_the_same(own: Catalog) -> None:
    outer = Outer(attack={"name": "inner", "steps": 9}, spare="inner")
    assert outer.dump() == {
        "name": "outer",
        "attack": {"name": "inner", "steps": 9},
        "spare": {"name": "inner", "steps": 3},
    }
    assert own.build("trainer", outer.dump()) == outer
    assert own.build("trainer", "outer") != outer
    assert hash(own.build("trainer", outer.dump())) == hash(outer)


def test_components_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().steps = 4


def test_the_installed_catalogue_has_no_problems() -> None:
    catalog = catalog_module.installed()
    assert catalog.problems == []
    assert "policy-gradient" in catalog.plugins


def test_unreadable_recipe_is_one_line(own: Catalog) -> None:
    own.entries["recipe", "r"] = catalog_module.Entry(
        "recipe", "r", "robustkit:no.toml", "p", "d 1"
    )
    with pytest.raises(BrokenPluginError, match="recipe 'r' of plugin 'p'") as error:
        own.text("recipe", "r")
    one_line(error)
    with pytest.raises(BadValueError, match="not TOML"):
        from robustkit.recipe import parse

        parse("a = = b", "x")
