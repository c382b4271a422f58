"""robustkit eval --from: a set of images, its own data and threat, and flags that say otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustkit.cli import options
from robustkit.cli.sources import of_model
from robustkit.errors import BadValueError

if TYPE_CHECKING:
    from robustkit.interfaces import Attack, Images
    from robustkit.sets import AdversarialSet, SetRecord


def read(path: Path, attack: str | None, settings: Sequence[str]) -> AdversarialSet:
    """Read the set that is to be shown. Raises BadValueError where an attack is asked for, too."""
    from robustkit.sets import AdversarialSet

    if attack is not None:
        raise BadValueError(
            f"--attack '{attack}': --from shows images that are made; leave one out"
        )
    for setting in settings:
        if not of_model(setting):
            raise BadValueError(f"--set '{setting}': --from shows images that are made already")
    return AdversarialSet.read(path)


def attack_of(made: AdversarialSet, images: Images) -> Attack:
    """Make the attack that shows a set, whose points are of `images`."""
    from robustkit.engine.fixed import Fixed

    return Fixed.of(made, images)


def require_agreement(
    path: Path,
    record: SetRecord,
    dataset: str,
    classes: str,
    norm: str,
    eps: str,
    box: str,
    bits: int | None,
    target: str,
) -> None:
    """Raise BadValueError for a flag that is given and says otherwise than the set's record."""
    from robustkit.report.words import component
    from robustkit.threat import parse_norm

    threat = record.threat
    for flag, value, agrees in (
        ("--dataset", dataset, dataset in _names(record.data)),
        ("--classes", classes, options.split_list(classes) == list(record.data.get("classes", ()))),
        ("--norm", norm, norm and parse_norm(norm) == threat.norm),
        ("--eps", eps, eps and options.sizes(eps) == [threat.eps]),
        ("--box", box, box and options.box(box) == (threat.low, threat.high)),
        ("--quantize", bits, bits == threat.bits),
        ("--target", target, target == threat.target),
    ):
        if value and not agrees:
            of = f"{component(record.data)} under {threat.model()}"
            raise BadValueError(f"{flag} {value}: '{path}' was made of {of}; leave {flag} out")


def _names(data: dict[str, Any]) -> Iterator[str]:
    """Give the names of a data set and of those that it is taken from."""
    yield str(data.get("name"))
    if isinstance(inner := data.get("data"), dict):
        yield from _names(inner)
