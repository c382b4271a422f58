"""What every kind of component promises."""

from __future__ import annotations

import io
import json
import re
import tomllib
import types
from collections.abc import Callable, Iterator
from typing import Any, Literal, Union, get_args, get_origin

import tomli_w
import torch
from pydantic import ValidationError
from torch import Tensor

from robustkit.component import Component
from robustkit.interfaces import Batch, Loss, Terms, Trainer
from robustkit.records import EpochLine
from robustkit.testing.bench import (
    CLASSES,
    CLOCK,
    BenchKit,
    batch_of,
    conv_model,
    conv_points,
    same,
)
from robustkit.testing.core import (
    REFUSED,
    Check,
    Subject,
    attempt,
    require,
)

ODD_VALUES: tuple[Any, ...] = ("?", -1, 0, 1e9, [], {"such": 1}, True)
WAYS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dump()": lambda table: table,
    "JSON": lambda table: json.loads(json.dumps(table)),
    "TOML": lambda table: tomllib.loads(tomli_w.dumps(table)),
}
EPOCH = EpochLine(
    epoch=1, step=10, lr=0.1, loss=0.5, train_accuracy=0.9, heldout_accuracy=0.8
).model_dump(exclude={"more"}, exclude_none=True)
"""What an epoch tells in which nothing else was measured."""


def named_as_registered(subject: Subject) -> None:
    """The class's `name` is the one it is registered under: small letters, digits, - and dots.

    Those of another library have its name and a colon before them.
    """
    name = getattr(subject.component, "name", None)
    require(isinstance(name, str), "the class has no `name`")
    require(
        re.fullmatch(r"([a-z0-9][a-z0-9-]*:)?[a-z0-9][a-z0-9.-]*", str(name)),
        f"the name {name!r} has other than small letters, digits, '-' and '.'",
    )
    registered = subject.registered or name
    require(name == registered, f"it is registered as '{registered}' and named '{name}'")


def documented(subject: Subject) -> None:
    """The class says in its own docstring what it is."""
    require((subject.component.__dict__.get("__doc__") or "").strip(), "the class has no docstring")


def options_described(subject: Subject) -> None:
    """Every option has a description of one line and, in all but data sets, a default."""
    for option, field in subject.component.model_fields.items():
        text = (field.description or "").strip()
        require(text and "\n" not in text, f"option '{option}' has no description of one line")
        may_lack = subject.component.kind == "dataset" or not field.is_required()
        require(may_lack, f"option '{option}' has no default")
    if subject.lacking:
        made = attempt("a component without its options", subject.build, subject.name)
        require(made is REFUSED, f"it is built without {' and '.join(subject.lacking)}")


def options_refused(subject: Subject) -> None:
    """Unknown options and wrong values are refused in one line."""
    table = {"name": subject.name, **subject.options}
    made = attempt("an unknown option", subject.build, {**table, "no-such-option": 1})
    require(made is REFUSED, "an unknown option is not refused")
    for option in subject.component.model_fields:
        for value in ODD_VALUES:
            attempt(f"{option} = {value!r}", subject.build, {**table, option: value})


def rebuilt_from_dump(subject: Subject) -> None:
    """`build(dump(c)) == c`, also by way of JSON and TOML, for the defaults and other values."""
    for component in [subject.make(), *_variants(subject)]:
        table = component.dump()
        require(table.get("name") == subject.name, f"dump() names '{table.get('name')}'")
        for way, pass_on in WAYS.items():
            again = subject.build(pass_on(table))
            require(same_options(again, component), f"it is another one when built from {way}")


def frozen(subject: Subject) -> None:
    """Options cannot be changed after building."""
    component = subject.make()
    for option in [*type(component).model_fields, "no_such_option"]:
        try:
            setattr(component, option, getattr(component, option, 1))
        except (ValidationError, ValueError, TypeError, AttributeError):
            continue
        require(False, f"'{option}' can be set; components are frozen")


def defaults_not_shared(subject: Subject) -> None:
    """Nested components are built anew for each instance; name a default, do not build it."""
    first, second = dict(subject.make().nested()), dict(subject.make().nested())
    for option, component in first.items():
        require(component is not second[option], f"two instances share their '{option}'")


def state_survives(subject: Subject) -> None:
    """`state_dict` loads with weights_only and gives a new instance the state of the old one."""
    kept = _exercised(subject)
    fresh = _prepared(subject)
    for (path, old), (_, new) in zip(kept.tree(), fresh.tree(), strict=True):
        saved = io.BytesIO()
        torch.save(old.state_dict(), saved)
        saved.seek(0)
        try:
            state = torch.load(saved, weights_only=True)
        except Exception as error:
            line = str(error).splitlines()[0]
            require(
                False, f"the state of '{path or kept.name}' does not load with weights_only: {line}"
            )
        new.load_state_dict(state)
        require(
            same(new.state_dict(), old.state_dict()),
            f"the state of '{path or kept.name}' is not taken back",
        )
    require(
        same(_behaviour(fresh), _behaviour(kept)),
        "an instance that took the state back does not go on as the old one; state is missing",
    )


def same_options(a: Component, b: Component) -> bool:
    """Compare classes and options without asking the component's own `dump`."""
    if type(a) is not type(b):
        return False
    pairs = [(getattr(a, option), getattr(b, option)) for option in type(a).model_fields]
    return all(
        same_options(v, w) if isinstance(v, Component) and isinstance(w, Component) else v == w
        for v, w in pairs
    )


def _variants(subject: Subject) -> Iterator[Component]:
    """Give instances with one option changed, as far as its type tells another value."""
    made = subject.make()
    for option, field in type(made).model_fields.items():
        for value in _others(getattr(made, option), field.annotation):
            table = {"name": subject.name, **subject.options, option: value}
            variant = attempt(f"{option} = {value!r}", subject.build, table)
            if variant is not REFUSED:
                yield variant


def _others(value: object, annotation: object) -> list[object]:
    if get_origin(annotation) is Literal:
        return [choice for choice in get_args(annotation) if choice != value]
    if value is None and get_origin(annotation) in (Union, types.UnionType):
        return [0.5, 1, "other"]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    return [value / 2, value / 2 + 0.1] if isinstance(value, float) else []


def _prepared(subject: Subject) -> Component:
    component: Component = subject.make()
    for _, part in component.tree():
        part.prepare(BenchKit())
    return component


def _exercised(subject: Subject) -> Component:
    """Give an instance that has seen a step and an epoch."""
    component = _prepared(subject)
    batch = batch_of(*conv_points())
    terms = _terms(component, batch)
    for _, part in component.tree():
        part.observe(batch, terms)
        part.end_epoch(EPOCH)
    return component


def _terms(component: Component, batch: Batch) -> Terms:
    if isinstance(component, Trainer):
        terms = component.objective(conv_model().train(), batch, CLOCK)
        more = {name: value.detach() for name, value in terms.more.items()}
        return Terms(terms.loss.detach(), terms.logits.detach(), more)
    with torch.no_grad():
        return Terms(torch.linspace(0, 1, len(batch)), conv_model()(batch.x))


def _behaviour(component: Component) -> Tensor | None:
    """Give what a component computes from a batch, where it computes losses."""
    batch = batch_of(*conv_points())
    if isinstance(component, Trainer):
        return component.objective(conv_model(), batch, CLOCK).loss.detach()
    if isinstance(component, Loss):
        logits = torch.linspace(-1, 1, len(batch) * CLASSES).view(-1, CLASSES)
        return component(logits, batch.y, BenchKit().at(batch, CLOCK))
    return None


CHECKS = Check.all(
    named_as_registered,
    documented,
    options_described,
    options_refused,
    rebuilt_from_dump,
    frozen,
    defaults_not_shared,
    state_survives,
)
