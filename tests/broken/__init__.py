"""Components that keep their contract, and for each check some that break it on purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from robustkit.component import Component
from robustkit.testing import Subject

C = TypeVar("C", bound=type[Component])


@dataclass(frozen=True)
class Broken:
    """A class on which a check must fail, saying `message`, and its healthy sibling."""

    kind: str
    check: str
    message: str
    subject: Subject
    healthy: Subject

    def __str__(self) -> str:
        return f"{self.kind}-{self.check}-{self.subject.component.__name__}"


BROKEN: list[Broken] = []


def breaks(check: str, message: str, registered: str | None = None) -> Callable[[C], C]:
    """Note that a class breaks what `check` asks; its base class is the healthy sibling."""

    def note(broken: C) -> C:
        subject, healthy = Subject(broken, registered=registered), Subject(broken.__bases__[0])
        BROKEN.append(Broken(broken.kind, check, message, subject, healthy))
        return broken

    return note
