"""What plugins are made of: something with a name, typed options and perhaps a state."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

if TYPE_CHECKING:
    from robustkit.interfaces import Batch, Kit, Terms

State = dict[str, Any]
KINDS = ("attack", "loss", "trainer", "generator", "model", "dataset")

# A nested component is given by name, and only the catalogue knows names. It stands above this
# module, so it is named here the way that hooks name classes.
BUILDER = "robustkit.catalog:build"


def load_object(target: str) -> Any:
    """Import "module:attribute"."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def slot(default: str | dict[str, Any] | None, description: str) -> Any:
    """Make an option that holds a component: `attack: Attack = slot("pgd", "inner attack")`.

    It takes a name, a table `{name, ...options}` or an instance, and by default builds `default`
    anew for each owner.
    """
    return Field(default=default, description=description)


class Component(BaseModel):
    """Something that has a name, typed options and perhaps a state: what plugins are made of.

    Options are pydantic fields with a description; they are frozen, and unknown names are refused.
    An option that is itself a component is made by `slot`. Modules and state sit in private
    attributes; state changes only in `observe` and `end_epoch`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, arbitrary_types_allowed=True
    )
    kind: ClassVar[str]
    name: ClassVar[str]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        if "kind" not in cls.__dict__:
            return handler(source)
        return core_schema.no_info_plain_validator_function(
            lambda value: load_object(BUILDER)(cls.kind, value),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda c: c.dump()),
        )

    def dump(self) -> dict[str, Any]:
        """Give the table that builds this component again: its name and every option."""
        return {"name": self.name, **self.model_dump(mode="json", exclude_none=True)}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.dump() == other.dump()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.dump())))

    def nested(self) -> Iterator[tuple[str, Component]]:
        """Give the components among this one's options, by option name."""
        for option in type(self).model_fields:
            value = getattr(self, option)
            if isinstance(value, Component):
                yield option, value

    def tree(self, path: str = "") -> Iterator[tuple[str, Component]]:
        """Give this component and all inside it, by path ("" for itself, "attack.loss", ...)."""
        yield path, self
        for name, inner in self.nested():
            yield from inner.tree(f"{path}.{name}".lstrip("."))

    def prepare(self, kit: Kit) -> None:
        """Take what the engine offers, once before training; nested components get it, too."""

    def observe(self, batch: Batch, terms: Terms) -> None:
        """Learn from one real step: the batch of all processes and its detached per-point terms."""

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """Learn from an epoch's metrics (`train_accuracy`, `heldout_accuracy`, ...)."""

    def state_dict(self) -> State:
        """Give what a resume needs of this component alone; nested ones give their own."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
