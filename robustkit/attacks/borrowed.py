"""Classes of another library as attacks with typed options, read off their signatures."""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import Field

from robustkit.attacks.foreign import Foreign

PLAIN = (int, float, bool, str, type(None))


def borrow(
    base: type[Foreign],
    module: str,
    name: str,
    classes: Sequence[type],
    left_out: Collection[str],
    attributes: Mapping[str, Any],
    defaults: Mapping[str, Any] = {},
    absent: str = "the library's own",
) -> type[Foreign]:
    """Make an attack of the options that constructors of another library's classes share.

    Kept are those of plain types (numbers, words, tuples of them) that have a default and are not
    `left_out`. Defaults are the library's, but for `defaults`; where several classes differ it is
    None, and `absent` says what that stands for. Descriptions are the library's, too. The attack
    is the attribute `name` of `module`, and has the class `attributes`.
    """
    annotations: dict[str, Any] = {}
    namespace: dict[str, Any] = {
        "__module__": module,
        "__qualname__": name,
        "__doc__": _summary(classes[0]),
        "__annotations__": annotations,
        **attributes,
    }
    told = {option: text for c in reversed(classes) for option, text in _described(c).items()}
    for option, parameter in inspect.signature(classes[0]).parameters.items():
        if option in left_out or option in base.model_fields:
            continue
        annotation = _plain(_annotation(classes[0], parameter.annotation))
        needed = parameter.default is inspect.Parameter.empty and option not in defaults
        if needed or annotation is None:
            continue
        own = [inspect.signature(c).parameters[option].default for c in classes]
        shared = own[0] if all(default == own[0] for default in own) else None
        default = defaults.get(option, shared)
        text = told.get(option, option.replace("_", " "))
        annotation = _ranged(annotation, default if shared is inspect.Parameter.empty else own[0])
        if default is None and own[0] is not None:
            annotation, text = annotation | None, f"{text}; if absent, {absent}"
        annotations[option] = annotation
        namespace[option] = Field(default=default, description=text)
    return types.new_class(name, (base,), exec_body=lambda body: body.update(namespace))


def _annotation(owner: type, annotation: Any) -> Any:
    """Resolve one annotation; those that name what is imported for type checkers are none."""
    if not isinstance(annotation, str):
        return annotation
    constructor = inspect.unwrap(owner.__init__)  # type: ignore[misc]
    module = sys.modules[constructor.__module__]
    try:
        return eval(annotation, vars(module))  # the library's own source
    except (NameError, TypeError):
        return None


def _plain(annotation: Any) -> Any:
    """Give what of an annotation is plain: numbers, words, tuples of them; None if nothing is."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        kept = [one for one in map(_plain, inner) if one is not None]
        return reduce(or_, kept) if set(kept) - {type(None)} else None
    if origin is tuple:
        return annotation if all(one is Ellipsis or _plain(one) for one in inner) else None
    return annotation if origin is Literal or annotation in PLAIN else None


def _ranged(annotation: Any, default: Any) -> Any:
    """What is above 0 by default is a count, a size or a rate: at least 0."""
    number = isinstance(default, int | float) and not isinstance(default, bool)
    return Annotated[annotation, Field(ge=0)] if number and default > 0 else annotation


def _summary(owner: type) -> str:
    """Give the first sentence of what a class says of itself, and the paper it links to."""
    text = inspect.getdoc(owner) or owner.__name__
    first = _sentence(re.split(r"\n\s*\n|\n\|", text)[0])
    link = re.search(r"https?://[^\s>]+[^\s>.,)]", text)
    return f"{first} ({link[0]})." if link and link[0] not in first else f"{first}."


def _described(owner: type) -> dict[str, str]:
    """Find the descriptions of options in docstrings, of reST or of Google's form."""
    found: dict[str, str] = {}
    for c in reversed(owner.__mro__[:-1]):
        for doc in (c.__doc__, c.__init__.__doc__):  # type: ignore[misc]
            text = inspect.cleandoc(doc or "")
            for match in re.finditer(r":param (\w+):(.*?)(?=\n\s*:|\n\s*\n|\Z)", text, re.S):
                found[match[1]] = _sentence(match[2])
            arguments = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", text, re.S | re.M)
            for match in re.finditer(
                r"^ {4}(\w+) ?:(.*?)(?=^ {4}\w+ ?:|\n\s*\n|\Z)",
                arguments[1] if arguments else "",
                re.S | re.M,
            ):
                found[match[1]] = _sentence(match[2])
    return {option: _lowered(text) for option, text in found.items() if text}


def _sentence(text: str) -> str:
    """Give the first sentence in one line, without the marks of reST."""
    line = re.sub(r"\s*\[#?\w+\]_", "", " ".join(text.split()))
    line = re.sub(r":\w+:`\.?([^`]*)`|`+([^`]*)`+", r"\1\2", line)
    return re.split(r"(?<=[^.\d])\.\s+(?=[A-Z|])", line)[0].rstrip(". ")


def _lowered(text: str) -> str:
    """Begin with a small letter, as our own descriptions do, but for names such as DCT."""
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
