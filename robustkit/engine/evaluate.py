"""Attack a model and say what it withstands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from robustkit.engine import checks
from robustkit.engine.blocks import Ids, order
from robustkit.engine.device import pick_device, shared
from robustkit.engine.evaluation import Evaluation
from robustkit.engine.limits import NO_LIMITS, Limits
from robustkit.engine.subject import Points, lent, look
from robustkit.engine.targets import target_class
from robustkit.engine.work import EvalProgress, Unwatched
from robustkit.engine.workers import hired
from robustkit.errors import BadValueError, BrokenPluginError
from robustkit.interfaces import Attack, Images
from robustkit.records import EvalRecord, RunFolder
from robustkit.threat import ThreatModel


def evaluate(
    model: nn.Module,
    images: Images,
    attacks: Sequence[Attack],
    threats: Sequence[ThreatModel],
    *,
    folder: RunFolder,
    model_name: str,
    model_hash: str,
    data: dict[str, Any],
    classes: Sequence[str] | None = None,
    part: str = "test",
    seed: int = 0,
    limit: int | None = None,
    ids: Ids | None = None,
    batch_size: int = 256,
    eot: int = 1,
    device: str = "auto",
    processes: int = 1,
    rebuild: Callable[[], nn.Module] | None = None,
    limits: Limits = NO_LIMITS,
    resume: bool = False,
    fresh: bool = False,
    progress: EvalProgress | None = None,
) -> list[EvalRecord]:
    """Evaluate each attack under each threat on the same points; a record each, also as files.

    `data` is the data set's dump and `classes` the names that the model knows (else the data
    set's). Points come in seeded order, or are those of `ids` (n,), in their order; `limit` takes
    the first ones. Attacks see the mean of the logits of `eot` passes as one. A finished evaluation
    of the same hash is read, unless `fresh`; an unfinished one is gone on with on `resume`, else
    begun anew. The model comes back as it was.

    Several `processes` share the points of each step, a thread each, or on graphics cards a card
    each; `rebuild` makes the model again in them where it cannot be sent (see Workers). Under
    `limits` each evaluation may end before its last point (see Limits); a larger limit goes on
    where it stopped.

    Raises BadValueError where model, images, attacks and threats do not fit together, and, after
    the other attacks have run, BrokenPluginError for an attack that failed.
    """
    if eot < 1:
        raise BadValueError(f"eot {eot} is no number of passes; it must be at least 1")
    progress = progress or Unwatched()
    points = prepare(images, attacks, threats, seed, limit, ids, batch_size, device)
    require_order(limits, attacks, threats, named=ids is not None)
    devices = shared(points.device, processes)
    origin = {
        "model": model_name,
        "model_hash": model_hash,
        "seed": seed,
        "data": data,
        "part": part,
        "limit": points.limit,
        "named": ids is not None,
        "eot": eot,
        "classes": tuple(images.classes),
    }
    records: list[EvalRecord] = []
    failures: list[BrokenPluginError] = []
    with hired(devices, model, rebuild, points) as workers, lent(model, points.device):
        subject = look(model, points, classes or images.classes, seed)
        for threat in threats:
            for attack in attacks:
                work = Evaluation(
                    subject, attack, threat, folder, origin, progress, workers, limits
                )
                try:
                    records.append(work.run(batch_size, resume=resume, fresh=fresh))
                except BrokenPluginError as error:
                    progress.note(str(error))
                    failures.append(error)
    records = with_comparisons(records, folder)
    if failures:
        raise failures[0]
    return records


def prepare(
    images: Images,
    attacks: Sequence[Attack],
    threats: Sequence[ThreatModel],
    seed: int,
    limit: int | None,
    ids: Ids | None,
    batch_size: int,
    device: str,
) -> Points:
    """Choose the points to attack: those whose label is the target are left out.

    Raises BadValueError where something asked for does not fit.
    """
    require_fit(attacks, threats, len(images.classes))
    if batch_size < 1:
        raise BadValueError(f"batch size {batch_size} is too small; it must be at least 1")
    place = target_class(threats[0].target, images.classes)
    chosen = order(images.labels, seed, limit if place is None else None, ids)
    if place is not None:
        chosen = chosen[images.labels[chosen].cpu() != place][:limit]
        if not len(chosen):
            raise BadValueError(f"no point is left whose label is not '{threats[0].target}'")
    if len({threat.target for threat in threats}) > 1:
        raise BadValueError("threats of several targets are of several points; give one target")
    boxed = any(math.isfinite(threat.low) for threat in threats)
    some = len(chosen) if ids is not None or len(chosen) == limit else None
    bits = frozenset(threat.bits for threat in threats if threat.bits is not None)
    return Points(images, chosen, pick_device(device), boxed, some, bits)


def require_fit(attacks: Sequence[Attack], threats: Sequence[ThreatModel], classes: int) -> None:
    """Raise BadValueError where an attack cannot work under a threat."""
    pairs = [(attack, threat) for attack in attacks for threat in threats]
    for part, threat in [(p, t) for a, t in pairs for p in a.parts(classes, t)]:
        if threat.norm not in part.norms:
            raise BadValueError(
                f"attack '{part.name}' does not work in norm '{threat.norm}'; "
                f"it works in {', '.join(part.norms)}"
            )
        if math.isinf(threat.eps) and threat.norm != "none" and not part.minimal:
            raise BadValueError(
                f"attack '{part.name}' needs a finite eps; 'inf' is for attacks that look for the "
                "smallest perturbation, such as 'fmn'"
            )


def require_order(
    limits: Limits, attacks: Sequence[Attack], threats: Sequence[ThreatModel], *, named: bool
) -> None:
    """Raise BadValueError where to stop early would give a number of nothing."""
    if limits.set and named:
        raise BadValueError("points named by their ids are in no random order: leave out the limit")
    if limits.precision is None:
        return
    if any(math.isinf(threat.eps) for threat in threats):
        raise BadValueError("precision is of robust accuracy, which eps 'inf' has none of")
    for attack in attacks:
        if attack.separate:
            raise BadValueError(
                f"precision is of one robust accuracy; '{attack.name}' has one for each part"
            )


def with_comparisons(records: Sequence[EvalRecord], folder: RunFolder) -> list[EvalRecord]:
    """Add to records, and to their files, the warnings that only comparing them gives."""
    lines = checks.across(records)
    result = []
    for record in records:
        new = [line for line in lines[record.hash] if line not in record.warnings]
        if new:
            record = record.model_copy(update={"warnings": (*record.warnings, *new)})
            record.write(folder.evaluations / f"{record.stem}.json")
        result.append(record)
    return result
