"""What a check is, what it runs on, and how checks are listed, run and handed to pytest."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from robustkit.catalog import KIND_CLASSES, Catalog, installed
from robustkit.errors import RobustkitError, UnknownNameError

if TYPE_CHECKING:
    from robustkit.component import Component

MODULES = {
    "attack": "attacks",
    "loss": "losses",
    "trainer": "trainers",
    "generator": "generators",
    "model": "models",
    "dataset": "datasets",
}


class ContractError(AssertionError):
    """A component breaks its contract; the message is one line."""


class NotApplicableError(Exception):
    """A check has nothing to say about this component; the message says why."""


def require(condition: object, message: str) -> None:
    """Raise ContractError with the message unless the condition holds."""
    if not condition:
        raise ContractError(message)


REFUSED = object()
"""What `attempt` gives where a call was refused as it should be."""


def attempt(what: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call; give REFUSED where a RobustkitError of one line refuses. Other errors are breaches."""
    try:
        return function(*args, **options)
    except RobustkitError as error:
        require(str(error) and "\n" not in str(error), f"{what} is not refused in one line")
        return REFUSED
    except Exception as error:
        raise ContractError(
            f"{what} raises {type(error).__name__} instead of a RobustkitError of one line"
        ) from error


class _Single(Catalog):
    """A catalogue of one class, so that classes nobody registered are built the same way."""

    def __init__(self, name: str, component: type[Component]) -> None:
        super().__init__()
        self._name, self._component = name, component

    def load(self, kind: str, name: str) -> type[Component]:
        if name != self._name:
            raise UnknownNameError(kind, name, [self._name])
        return self._component


@dataclass(frozen=True)
class Subject:
    """A component under test: its class, and options other than the defaults.

    `registered` is the name that the catalogue has it under, where it has.
    """

    component: type[Component]
    options: Mapping[str, Any] = field(default_factory=dict)
    registered: str | None = None

    @classmethod
    def of(cls, component: Subject | Component | type[Component]) -> Subject:
        """Take a class, or an instance for the sake of its options."""
        if isinstance(component, Subject):
            return component
        if isinstance(component, type):
            return cls(component)
        options = {option: v for option, v in component.dump().items() if option != "name"}
        return cls(type(component), options)

    @classmethod
    def registered_as(cls, kind: str, name: str, catalog: Catalog | None = None) -> Subject:
        """Take a component of the catalogue. Raises what Catalog.load raises."""
        return cls((catalog or installed()).load(kind, name), registered=name)

    def __str__(self) -> str:
        return f"{self.component.kind} {self.name}"

    @property
    def name(self) -> str:
        """The name that it is built by."""
        return self.registered or str(getattr(self.component, "name", self.component.__name__))

    @property
    def lacking(self) -> list[str]:
        """The options that have no default and are not given."""
        fields = self.component.model_fields
        return [n for n, f in fields.items() if f.is_required() and n not in self.options]

    def build(self, table: object) -> Component:
        """Build from a name or a table, as the catalogue does."""
        return _Single(self.name, self.component).build(self.component.kind, table)

    def make(self, **options: Any) -> Any:
        """Build with the subject's options and these. Raises NotApplicableError where some lack."""
        if missing := [option for option in self.lacking if option not in options]:
            raise NotApplicableError(f"needs {' and '.join(missing)}; give an instance to check")
        return self.build({"name": self.name, **self.options, **options})


@dataclass(frozen=True)
class Check:
    """One promise of a kind of component."""

    name: str
    description: str
    function: Callable[[Subject], None]

    @classmethod
    def all(cls, *functions: Callable[[Subject], None]) -> tuple[Check, ...]:
        """Make a check of each function, named and described as the function is."""
        return tuple(
            cls(f.__name__.replace("_", "-"), " ".join((f.__doc__ or "").split()), f)
            for f in functions
        )

    def __str__(self) -> str:
        return self.name

    def run(self, component: Subject | Component | type[Component]) -> None:
        """Check a class, or an instance for its options.

        Raises ContractError with one line where the promise is broken, and NotApplicableError
        where there is nothing to check. Global random numbers come back as they were.
        """
        with _own_random_state():
            try:
                self.function(Subject.of(component))
            except (ContractError, NotApplicableError):
                raise
            except Exception as error:
                line = (str(error).splitlines() or [""])[0]
                raise ContractError(f"raised {type(error).__name__}: {line}") from error


@dataclass(frozen=True)
class Result:
    """How a check ended: its name, whether the promise holds, and a line where there is one."""

    check: str
    ok: bool
    message: str = ""


def checks(kind: str) -> list[Check]:
    """List the checks of a kind: attack, loss, trainer, generator, model or dataset.

    Raises UnknownNameError for another kind.
    """
    if kind not in MODULES:
        raise UnknownNameError("kind", kind, MODULES)
    found: list[Check] = []
    for module in ("common", MODULES[kind]):
        found += import_module(f"robustkit.testing.{module}").CHECKS
    return found


def check(kind: str, name: str, catalog: Catalog | None = None) -> list[Result]:
    """Run every check on a component of the catalogue; one that does not load has one result."""
    try:
        subject = Subject.registered_as(kind, name, catalog)
    except UnknownNameError:
        raise
    except RobustkitError as error:
        return [Result("loads", False, str(error))]
    return [_result(one, subject) for one in checks(kind)]


def _result(one: Check, subject: Subject) -> Result:
    try:
        one.run(subject)
    except ContractError as error:
        return Result(one.name, False, str(error))
    except NotApplicableError as reason:
        return Result(one.name, True, f"not applicable: {reason}")
    return Result(one.name, True)


def parametrize_with_checks(
    components: Iterable[Component | type[Component] | Subject],
) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a pytest function of `component` and `check`: one test a component and check.

    The function calls `check.run(component)`; a check that does not apply is skipped.
    """
    import pytest

    subjects = [Subject.of(component) for component in components]
    return pytest.mark.parametrize(
        ("component", "check"),
        [
            pytest.param(
                subject,
                _Skipping(c.name, c.description, c.function),
                id=f"{_kind(subject)}-{subject.name}-{c}",
            )
            for subject in subjects
            for c in checks(_kind(subject))
        ],
    )


def _kind(subject: Subject) -> str:
    """Give the kind of a class. Raises UnknownNameError for what is no component."""
    kind = getattr(subject.component, "kind", None)
    if kind not in KIND_CLASSES:
        raise UnknownNameError("component", subject.component.__name__, KIND_CLASSES.values())
    return str(kind)


class _Skipping(Check):
    """A check that tells pytest where it does not apply."""

    def run(self, component: Subject | Component | type[Component]) -> None:
        import pytest

        try:
            super().run(component)
        except NotApplicableError as reason:
            pytest.skip(str(reason))


@contextmanager
def _own_random_state() -> Iterator[None]:
    import numpy as np
    import torch

    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
