"""Finds plugins by entry point, refuses clashes, and builds components from names and options."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pluggy

from robustkit import hookspecs
from robustkit.errors import (
    BadValueError,
    BrokenPluginError,
    RobustkitError,
    UnknownNameError,
    nearest,
)

if TYPE_CHECKING:
    from pydantic import ValidationError

    from robustkit.component import Component

HOOKS = {
    "register_attacks": "attack",
    "register_losses": "loss",
    "register_trainers": "trainer",
    "register_generators": "generator",
    "register_models": "model",
    "register_datasets": "dataset",
    "register_analyses": "analysis",
    "register_commands": "command",
    "register_recipes": "recipe",
    "register_tables": "table",
}
KIND_CLASSES = {
    "attack": "Attack",
    "loss": "Loss",
    "trainer": "Trainer",
    "generator": "Generator",
    "model": "Architecture",
    "dataset": "Dataset",
}

OWN_CODE = "ROBUSTKIT_OWN_CODE"
"""How child processes learn what code the command line allowed."""


@dataclass(frozen=True)
class Entry:
    """One registered thing: where its class is, and who brought it."""

    kind: str
    name: str
    target: str
    plugin: str
    distribution: str


@dataclass(frozen=True)
class Problem:
    """A plugin, or a name of it, that was set aside, and why."""

    plugin: str
    distribution: str
    reason: str
    hint: str

    def __str__(self) -> str:
        return f"plugin '{self.plugin}' ({self.distribution}): {self.reason}; {self.hint}"


@dataclass
class Catalog:
    """What is installed: `entries` by kind and name, and the `problems` met in finding them."""

    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    clashes: dict[tuple[str, str], str] = field(default_factory=dict)
    plugins: dict[str, str] = field(default_factory=dict)
    """Distribution of each plugin that works, by the plugin's name."""

    def of_kind(self, kind: str) -> list[Entry]:
        """Give the entries of one kind, by name."""
        return [entry for (k, _), entry in sorted(self.entries.items()) if k == kind]

    def named(self, name: str) -> list[Entry]:
        """Give the entries of one name, whatever their kind."""
        return [entry for (_, n), entry in sorted(self.entries.items()) if n == name]

    def find(self, kind: str, name: str) -> Entry:
        """Find an entry. Raises UnknownNameError, or BrokenPluginError where two claim the name."""
        if (kind, name) in self.clashes:
            raise BrokenPluginError(self.clashes[kind, name])
        if (kind, name) not in self.entries:
            hint = ""
            if kind == "model" and ":" in name:
                hint = f"no file may name code; if it is yours, say so: --model {name}"
            elif elsewhere := self.named(name):
                hint = f"'{name}' is registered as {' and '.join(e.kind for e in elsewhere)}"
            elif self.problems:
                hint = "some plugins were set aside, see 'robustkit plugins list'"
            raise UnknownNameError(kind, name, (e.name for e in self.of_kind(kind)), hint)
        return self.entries[kind, name]

    def load(self, kind: str, name: str) -> type[Component]:
        """Import a component's class. Raises BrokenPluginError, naming whose it is."""
        from robustkit import interfaces
        from robustkit.component import load_object

        entry = self.find(kind, name)
        try:
            loaded = load_object(entry.target)
        except RobustkitError:
            raise
        except Exception as error:
            raise BrokenPluginError(
                f"{kind} '{name}' of plugin '{entry.plugin}' ({entry.distribution}) "
                f"does not import: {type(error).__name__}: {_first_line(error)}"
            ) from error
        base: type[Component] = getattr(interfaces, KIND_CLASSES[kind])
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise BrokenPluginError(
                f"{kind} '{name}' of plugin '{entry.plugin}' ({entry.distribution}): "
                f"{entry.target} is not a subclass of robustkit.{base.__name__}"
            )
        return loaded

    def build(self, kind: str, value: object) -> Component:
        """Build a component from its name, a table `{name, ...options}`, or give an instance back.

        Raises UnknownNameError for unknown names and options, BadValueError for bad values.
        """
        from pydantic import ValidationError

        from robustkit import interfaces

        if isinstance(value, getattr(interfaces, KIND_CLASSES[kind])):
            return value
        table = {"name": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise BadValueError(
                f"{kind} {value!r} is not one: give a name, or a table with a 'name' and options"
            )
        name = table["name"]
        component = self.load(kind, name)
        options = {key: option for key, option in table.items() if key != "name"}
        try:
            return component(**options)
        except ValidationError as error:
            raise explain(error, f"{kind} '{name}'", component.model_fields) from None

    def text(self, kind: str, name: str) -> str:
        """Read the recipe or table registered under a name. Raises UnknownNameError."""
        entry = self.find(kind, name)
        package, _, file = entry.target.partition(":")
        try:
            return files(package).joinpath(file).read_text("utf-8")
        except (ImportError, OSError) as error:
            raise BrokenPluginError(
                f"{kind} '{name}' of plugin '{entry.plugin}' ({entry.distribution}): "
                f"{entry.target} cannot be read: {_first_line(error)}"
            ) from error


def explain(error: ValidationError, owner: str, options: Iterable[str]) -> RobustkitError:
    """Say in one line what pydantic found: the option, the value, and what would be right."""
    first = error.errors()[0]
    option = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return UnknownNameError("option", option, options, f"an option of {owner} was meant")
    if first["type"] == "missing":
        return BadValueError(f"{owner} needs its option '{option}'")
    message = first["msg"].removeprefix("Value error, ")
    return BadValueError(f"option '{option}' of {owner} is {first['input']!r}: {message}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"


def discover(points: Iterable[EntryPoint], only: Iterable[str] | None = None) -> Catalog:
    """Build a catalogue from entry points; `only` picks plugins by name besides the built-in one.

    Raises UnknownNameError where `only` names a plugin that is not there.
    """
    catalog = Catalog()
    by_name: dict[str, dict[tuple[str, str], EntryPoint]] = {}
    for point in points:
        by_name.setdefault(point.name, {})[_distribution(point), point.value] = point
    if only is not None:
        wanted = set(only)
        for name in sorted(wanted - by_name.keys()):
            raise UnknownNameError("plugin", name, by_name, "named in ROBUSTKIT_PLUGINS")
        by_name = {n: p for n, p in by_name.items() if n in wanted | {"builtin"}}
    manager = pluggy.PluginManager(hookspecs.GROUP)
    manager.add_hookspecs(hookspecs)
    for name, claims in sorted(by_name.items()):
        owners = sorted(owner for owner, _ in claims)
        if len(claims) > 1:
            reason = f"{' and '.join(owners)} both have a plugin of this name"
            catalog.problems.append(
                Problem(name, owners[0], reason, "uninstall one of the two; neither is used")
            )
            continue
        problem = _add_plugin(catalog, manager, *claims.values())
        if problem:
            catalog.problems.append(problem)
    return catalog


def _add_plugin(
    catalog: Catalog, manager: pluggy.PluginManager, point: EntryPoint
) -> Problem | None:
    """Load one plugin and take its entries; all of them or, with the reason, none."""
    name, owner = point.name, _distribution(point)
    try:
        plugin = point.load()
        manager.register(plugin, name=name)
    except (Exception, SystemExit) as error:
        reason = f"does not load: {type(error).__name__}: {_first_line(error)}"
        return Problem(name, owner, reason, f"try: python -c 'import {point.module}'")
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():
            near = nearest(caller.name, HOOKS)
            return Problem(
                name, owner, f"implements the unknown hook '{caller.name}'", near.lstrip("; ")
            )
    entries = []
    for hook, kind in HOOKS.items():
        caller = getattr(manager.hook, hook)
        for implementation in caller.get_hookimpls():
            if implementation.plugin is not plugin:
                continue
            try:
                returned = implementation.function()
            except Exception as error:
                reason = f"{hook} raised {type(error).__name__}: {_first_line(error)}"
                return Problem(name, owner, reason, "it should only return a dict")
            if not _is_table(returned):
                reason = f"{hook} returned {type(returned).__name__} {returned!r:.60}"
                return Problem(name, owner, reason, 'it should return {name: "module:Class"}')
            entries += [Entry(kind, n, target, name, owner) for n, target in returned.items()]
    catalog.plugins[name] = owner
    for entry in entries:
        _add_entry(catalog, entry)
    return None


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(n, str) and isinstance(t, str) and ":" in t for n, t in value.items()
    )


def _add_entry(catalog: Catalog, entry: Entry) -> None:
    key = (entry.kind, entry.name)
    if key in catalog.clashes:
        catalog.clashes[key] += f", and plugin '{entry.plugin}' ({entry.distribution}) too"
    elif other := catalog.entries.pop(key, None):
        catalog.clashes[key] = (
            f"{entry.kind} '{entry.name}' is claimed by plugin '{other.plugin}' "
            f"({other.distribution}) and plugin '{entry.plugin}' ({entry.distribution})"
        )
        for claimant in (other, entry):
            catalog.problems.append(
                Problem(
                    claimant.plugin,
                    claimant.distribution,
                    catalog.clashes[key],
                    "only this name is disabled; pick one plugin with ROBUSTKIT_PLUGINS",
                )
            )
    else:
        catalog.entries[key] = entry


@cache
def installed() -> Catalog:
    """Give the catalogue of this environment; ROBUSTKIT_PLUGINS=a,b picks a subset."""
    chosen = os.environ.get("ROBUSTKIT_PLUGINS")
    only = None if chosen is None else [n.strip() for n in chosen.split(",") if n.strip()]
    catalog = discover(entry_points(group=hookspecs.GROUP), only)
    if own := os.environ.get(OWN_CODE):
        catalog.entries["model", own] = _own_code(own)
    return catalog


def allow_code(target: str) -> None:
    """Let "module:callable" stand for an architecture, here and in processes that start from here.

    Only what the command line names is allowed: files and plugins name what is registered. Raises
    BadValueError where there is no such callable.
    """
    from robustkit.component import load_object

    load_object("robustkit.models.callables:architecture")(target)
    os.environ[OWN_CODE] = target
    installed().entries["model", target] = _own_code(target)


def _own_code(target: str) -> Entry:
    return Entry("model", target, f"robustkit.models.callables:{target}", "command line", "yours")


def build(kind: str, value: object) -> Any:
    """Build a component through the installed catalogue: see Catalog.build."""
    return installed().build(kind, value)
