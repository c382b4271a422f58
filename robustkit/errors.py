"""What a user can do wrong: one line that names the thing, the value and the nearest right one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class RobustkitError(Exception):
    """Shown to the user as one line, with exit code 2 and no traceback."""


class UnknownNameError(RobustkitError):
    """A name that nothing answers to; the message offers the nearest one that exists."""

    def __init__(self, thing: str, value: str, known: Iterable[str], hint: str = "") -> None:
        super().__init__(f"unknown {thing} '{value}'{nearest(value, known)}{hint and '; ' + hint}")

    def __reduce__(self) -> tuple[type[RobustkitError], tuple[str]]:
        # On its way from another process only the words remain.
        return RobustkitError, (str(self),)


class BadValueError(RobustkitError):
    """An option or a file whose value has the wrong type, range or content."""


class BrokenPluginError(RobustkitError):
    """A plugin or component that breaks its contract; the message names it."""


class UnsafeFileError(RobustkitError):
    """A file that would run code when loaded; the message names what it would have run."""


class TrainingStoppedError(RobustkitError):
    """Training met NaN or collapsed; the message says where and what to try."""


def nearest(value: str, known: Iterable[str]) -> str:
    """Give the tail of a message: the nearest known name, or all of them where none is near.

    Whether letters are capital does not matter; where no name is like it, those that hold it are.
    """
    names = sorted(set(known))
    if not names:
        return ""
    spelt = {name.lower(): name for name in names}
    near = get_close_matches(value.lower(), spelt, n=1, cutoff=0.5)
    near = near or [name for name in spelt if len(value) > 1 and value.lower() in name][:3]
    if near:
        return f"; did you mean {' or '.join(repr(spelt[name]) for name in near)}?"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"; known: {shown}"
