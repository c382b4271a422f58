"""Make a fixed adversarial set on one model, to be shown to others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from robustkit.analysis.statistics import rate
from robustkit.engine import checks
from robustkit.engine.attacking import Attacker
from robustkit.engine.blocks import Ids, Partial
from robustkit.engine.device import shared
from robustkit.engine.evaluate import prepare
from robustkit.engine.evaluation import remarks_of
from robustkit.engine.identity import hash_evaluation
from robustkit.engine.provenance import now, provenance
from robustkit.engine.subject import Subject, lent, look
from robustkit.engine.tally import Tally
from robustkit.engine.work import EvalProgress, Unwatched, attack_points
from robustkit.engine.workers import Workers, computing, hired
from robustkit.errors import BadValueError
from robustkit.interfaces import Attack, Images
from robustkit.records import Threat
from robustkit.sets import AdversarialSet, SetRecord
from robustkit.threat import ThreatModel


def craft(
    model: nn.Module,
    images: Images,
    attack: Attack,
    threat: ThreatModel,
    *,
    out: Path,
    model_name: str,
    model_hash: str,
    data: dict[str, Any],
    classes: Sequence[str] | None = None,
    part: str = "test",
    seed: int = 0,
    limit: int | None = None,
    ids: Ids | None = None,
    batch_size: int = 256,
    device: str = "auto",
    processes: int = 1,
    rebuild: Callable[[], nn.Module] | None = None,
    resume: bool = False,
    fresh: bool = False,
    progress: EvalProgress | None = None,
) -> AdversarialSet:
    """Attack every point, also those that the model gets wrong, and write the images to `out`.

    Of an ensemble, each part attacks what the earlier ones did not fool the model on; where none
    does, the last one's image is kept. Points, `data`, `classes`, `processes`, `rebuild` and
    `resume` are as in `evaluate`; a finished set of the same making is read on `resume`. The model
    comes back as it was.

    Raises BadValueError where model, images, attack and threat do not fit together, and for a file
    that is there already, unless `fresh`; BrokenPluginError, naming the attack, where it fails or
    proposes what lies outside the threat.
    """
    progress = progress or Unwatched()
    points = prepare(images, [attack], [threat], seed, limit, ids, batch_size, device)
    devices = shared(points.device, processes)
    origin: dict[str, Any] = {
        "model": model_name,
        "model_hash": model_hash,
        "seed": seed,
        "data": data,
        "part": part,
        "limit": points.limit,
        "classes": tuple(images.classes),
    }
    hashed = hash_evaluation(attack, threat, len(points), points.hash(), origin)
    if out.exists() and not fresh:
        return finished(out, hashed, resume, progress.note)
    started = now()
    partial = Partial(out.with_name(f"{out.name}-{hashed}.partial"), resume)
    if partial.done:
        progress.note(f"{out.name}: {len(partial.done)} steps are done already")
    with hired(devices, model, rebuild, points) as workers, lent(model, points.device):
        subject = look(model, points, classes or images.classes, seed)
        # A search that stops once this model is fooled stops short of what would fool another.
        attacker = Attacker(
            subject.searched,
            subject.judge,
            threat,
            seed,
            batch_size,
            progress.note,
            images.classes,
            crafting=True,
            workers=workers,
        )
        # Every point counts as right when clean, so that every one is attacked.
        parts, smallest = attack.parts(len(images.classes), threat), math.isinf(threat.eps)
        tally = Tally(points.ids, points.labels, points.labels, parts, smallest)
        attack_points(attack.name, attacker, points, tally, partial, progress)
    record = SetRecord(
        hash=hashed,
        **origin,
        attack=attack.dump(),
        threat=Threat.of(threat),
        remarks=tuple(remarks_of(attack, threat, images)),
        **_found(subject, tally, started, workers),
    )
    made = AdversarialSet(tally.ids, tally.labels, proposals(tally, images.shape), record)
    made.write(out)
    partial.drop()
    return made


def finished(out: Path, hashed: str, resume: bool, note: Callable[[str], None]) -> AdversarialSet:
    """Read a set that is there already, where to go on means to read it. Raises BadValueError."""
    if not resume:
        raise BadValueError(f"'{out}' is there already; give another --out, or --fresh")
    made = AdversarialSet.read(out)
    if made.record is None or made.record.hash != hashed:
        raise BadValueError(f"'{out}' is another set; give another --out, or --fresh")
    note(f"{out.name} is finished already ({made.record.provenance.started})")
    return made


def proposals(tally: Tally, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Give each point's image (N, C, H, W): of the part that broke it, else of the last one."""
    x_adv = np.zeros((len(tally.ids), *shape), np.float32)
    for block, part, step in tally.steps:
        places = block.start + step.rows
        best = (tally.broken_by[places] == part) | tally.robust[places]
        x_adv[places[best]] = step.x_adv[best]
    return x_adv


def _found(subject: Subject, tally: Tally, started: str, workers: Workers | None) -> dict[str, Any]:
    """Give what a set's record says of the model that it was made on."""
    predictions, parts, n = subject.clean.numpy(), tally.parts(), len(tally.ids)
    right = predictions == tally.labels
    clean = rate(int(right.sum()), n)
    warnings = [*subject.warnings, *checks.late(parts), *checks.black_box_wins(parts, n)]
    warnings += checks.near_chance(
        clean, tally.confusion(predictions, len(subject.points.images.classes))
    )
    seconds = subject.seconds + sum(part.seconds for part in parts)
    return {
        "clean": clean,
        "robust": rate(int((right & tally.robust).sum()), n),
        "parts": parts,
        "warnings": tuple(warnings),
        "provenance": provenance(subject.points.device, started, seconds, **computing(workers)),
    }
