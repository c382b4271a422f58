"""From a recipe's tables and the user's settings to components, every option written out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from robustkit import recipe as recipes
from robustkit.catalog import Catalog, installed
from robustkit.component import Component
from robustkit.errors import UnknownNameError
from robustkit.interfaces import Architecture, Attack, Dataset, Generator, Trainer
from robustkit.recipe import Recipe, Table

Settings = Iterable[tuple[str, Any]]


class Place(NamedTuple):
    """Where a component is in a recipe."""

    kind: str
    path: tuple[str, ...]


PLACES = (
    Place("dataset", ("data",)),
    Place("model", ("model",)),
    Place("trainer", ("trainer",)),
    Place("generator", ("generator",)),
    Place("attack", ("select", "attack")),
)


@dataclass(frozen=True)
class Components:
    """What a recipe is made of."""

    data: Dataset
    model: Architecture
    attack: Attack
    """Selects the epoch."""
    trainer: Trainer | None = None
    generator: Generator | None = None


def start(plugin: str, dataset: str | None = None, catalog: Catalog | None = None) -> Table:
    """Give the tables of the recipe registered under a plugin's name.

    With a data set, of "<plugin>-<dataset>" where that is registered, else of the plugin's with
    the data set changed. Raises UnknownNameError.
    """
    catalog = catalog or installed()
    name = f"{plugin}-{dataset}"
    if dataset and ("recipe", name) in catalog.entries:
        return recipes.parse(catalog.text("recipe", name), name)
    table = recipes.parse(catalog.text("recipe", plugin), plugin)
    return recipes.override(table, [("data.name", dataset)]) if dataset else table


def resolve(table: Mapping[str, Any], settings: Settings = ()) -> tuple[Recipe, Components]:
    """Apply settings ("a.b", value) to a recipe, and build it.

    The recipe that comes back holds every option of every component; resolving it again gives an
    equal one. Raises UnknownNameError or BadValueError for what nothing answers to.
    """
    full = _with_names(table)
    settings = [_naming(full, path, value) for path, value in settings]
    names = sorted((s for s in settings if _names(s[0])), key=lambda s: s[0].count("."))
    full = _with_names(recipes.override(full, names))
    for path, _ in settings:
        _check_root(full, path)
    recipe = recipes.validate(recipes.override(full, settings))
    components = build(recipe)
    return complete(recipe, components), components


def build(recipe: Recipe) -> Components:
    """Build a recipe's components through the catalogue."""
    catalog, tables = installed(), recipe.dump()
    built = [
        catalog.build(kind, table) if (table := _at(tables, path)) else None
        for kind, path in PLACES
    ]
    data, model, trainer, generator, attack = built
    return Components(data, model, attack, trainer, generator)  # type: ignore[arg-type]


def complete(recipe: Recipe, components: Components) -> Recipe:
    """Write every option of the components into their recipe."""
    tables = recipe.dump()
    tables["data"], tables["model"] = components.data.dump(), components.model.dump()
    tables["select"]["attack"] = components.attack.dump()
    for part in ("trainer", "generator"):
        if component := getattr(components, part):
            tables[part] = component.dump()
    return Recipe.model_validate(tables)


def _at(table: Mapping[str, Any], path: Iterable[str]) -> Any:
    node: Any = table
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _names(path: str) -> bool:
    return path.split(".")[-1] == "name"


def _naming(table: Table, path: str, value: Any) -> tuple[str, Any]:
    """Read "trainer.attack=fgsm" as "trainer.attack.name=fgsm"."""
    names = isinstance(value, str) and isinstance(_at(table, recipes.full_path(path)), dict)
    return (f"{path}.name", value) if names else (path, value)


def _check_root(table: Table, path: str) -> None:
    """Refuse a path that begins neither with a recipe's key nor with an option of its trainer."""
    first = path.split(".")[0]
    if first in recipes.SECTIONS:
        return
    options: Iterable[str] = ()
    if name := _at(table, ("trainer", "name")):
        options = installed().load("trainer", name).model_fields
    if first not in options:
        raise UnknownNameError("key", first, [*recipes.SECTIONS, *options], f"in '{path}'")


def _with_names(table: Mapping[str, Any]) -> Table:
    """Name every component that a recipe leaves to its default, so that options find their place.

    Nothing is built yet: an option may be missing that a setting will give.
    """
    result = recipes.override({**recipes.Recipe().dump(), **table}, [])
    for kind, path in PLACES:
        *parents, last = path
        parent = _at(result, parents)
        if isinstance(parent, dict) and (value := parent.get(last)):
            parent[last] = named(kind, value)
        elif isinstance(parent, dict) and kind == "attack":
            parent[last] = named(kind, recipes.Select().attack)
    return result


def named(kind: str, value: Any) -> Any:
    """Name the components inside a component's table that are not named yet."""
    table = {"name": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        return table
    for option, field in installed().load(kind, table["name"]).model_fields.items():
        default = field.get_default(call_default_factory=True)
        value = table.get(option, default)
        if not (inner := _kind_of(field.annotation)) or value is None:
            continue
        if isinstance(value, dict) and "name" not in value and default is not None:
            value = {**({"name": default} if isinstance(default, str) else default), **value}
        table = {**table, option: named(inner, value)}
    return table


def _kind_of(annotation: Any) -> str | None:
    """Give the kind of component that an option holds, if it holds one."""
    for type_ in (annotation, *get_args(annotation)):
        if isinstance(type_, type) and issubclass(type_, Component) and "kind" in vars(type_):
            return type_.kind
    return None
