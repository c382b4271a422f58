"""One attack under one threat on one subject: from blocks of points to the files of a result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustkit.analysis.statistics import rate
from robustkit.arrays import EvalPoints, Gallery
from robustkit.data.images import remark_of
from robustkit.engine import checks
from robustkit.engine.attacking import Attacker
from robustkit.engine.blocks import Partial
from robustkit.engine.fixed import Fixed
from robustkit.engine.identity import hash_evaluation
from robustkit.engine.limits import NO_LIMITS, Limits
from robustkit.engine.provenance import now, provenance
from robustkit.engine.subject import Subject
from robustkit.engine.tally import Tally
from robustkit.engine.targets import target_class
from robustkit.engine.work import EvalProgress, attack_points
from robustkit.engine.workers import Workers, computing
from robustkit.errors import BadValueError
from robustkit.interfaces import Attack, Images
from robustkit.records import EvalRecord, RunFolder, Stopped, Threat, stem
from robustkit.threat import ThreatModel


@dataclass
class Evaluation:
    """One attack under one threat on one subject."""

    subject: Subject
    attack: Attack
    threat: ThreatModel
    folder: RunFolder
    origin: dict[str, Any]
    """What the record says of model, data and points."""
    progress: EvalProgress
    workers: Workers | None = None
    limits: Limits = NO_LIMITS

    def __post_init__(self) -> None:
        self.classes = len(self.origin["classes"])
        points = self.subject.points
        self.hash = hash_evaluation(
            self.attack, self.threat, len(points), points.hash(), self.origin
        )
        name = stem(self.attack.name, self.threat.norm, self.threat.eps, self.hash)
        self.path = self.folder.evaluations / name

    def run(self, batch_size: int, *, resume: bool, fresh: bool) -> EvalRecord:
        """Give the record: as it was written before, or of an attack now."""
        known = None if fresh else finished(self.path)
        if known and self.limits.met(known):
            made = f"robustkit {known.provenance.versions.get('robustkit', '?')}"
            ended = "stopped already by as large a limit" if known.stopped else "finished already"
            self.progress.note(f"{self.path.name} is {ended} ({known.provenance.started}, {made})")
            return known
        started = now()
        # What a limit stopped is gone on with: it was never broken off.
        resume = resume or known is not None
        partial = Partial(self.path.with_name(self.path.name + ".partial"), resume)
        if partial.done:
            self.progress.note(f"{self.path.name}: {len(partial.done)} steps are done already")
        tally, stopped = self._attack(partial, batch_size)
        record = self._record(tally, started, stopped)
        self._write(record, tally)
        if not stopped:
            partial.drop()
        return record

    def _attack(self, partial: Partial, batch_size: int) -> tuple[Tally, Stopped | None]:
        """Run every part on every block, or take up what was done, up to the limits."""
        subject, points = self.subject, self.subject.points
        parts = self.attack.parts(self.classes, self.threat)
        smallest = math.isinf(self.threat.eps)
        separate = self.attack.separate
        tally = Tally(points.ids, points.labels, subject.clean, parts, smallest, separate)
        attacker = Attacker(
            subject.searched,
            subject.judge,
            self.threat,
            self.origin["seed"],
            batch_size,
            self.progress.note,
            self.origin["classes"],
            self.origin["eot"],
            workers=self.workers,
        )
        done = attack_points(
            self.attack.name, attacker, points, tally, partial, self.progress, self.limits
        )
        if done == len(points):
            return tally, None
        return tally.first(done), self.limits.stopped(tally, done)

    def _record(self, tally: Tally, started: str, stopped: Stopped | None) -> EvalRecord:
        subject, parts = self.subject, tally.parts()
        n = len(tally.ids)
        clean = rate(int(tally.correct.sum()), n)
        confusion = tally.confusion(tally.clean, self.classes)
        remarks = remarks_of(self.attack, self.threat, subject.points.images)
        if (eot := self.origin["eot"]) > 1:
            remarks.append(f"the attack saw the mean of the logits of {eot} passes as one (EOT)")
        remarks += self.attack.findings(tally.spent(), self.threat)
        if isinstance(self.attack, Fixed):
            remarks.append(self.attack.remark(self.origin["model_hash"]))
        warnings = [*subject.warnings, *checks.near_chance(clean, confusion)]
        for place, part in enumerate(parts):
            warnings += checks.rejections(part, tally.largest(place), str(self.threat))
        warnings += checks.late(parts) + checks.black_box_wins(parts, n)
        seconds = subject.seconds + sum(part.seconds for part in parts)
        return EvalRecord(
            hash=self.hash,
            **self.origin,
            attack=self.attack.dump(),
            threat=Threat.of(self.threat),
            stopped=stopped,
            clean=clean,
            robust=rate(int(tally.robust.sum()), n),
            reached=rate(int((tally.broken_by >= 0).sum()), clean.count)
            if self.threat.target is not None
            else None,
            parts=parts,
            separate=self.attack.separate,
            confusion_clean=confusion,
            confusion_adversarial=tally.confusion(tally.adversarial, self.classes),
            judged_by=subject.judge.rounds,
            remarks=tuple(remarks),
            warnings=tuple(warnings),
            provenance=provenance(
                subject.points.device, started, seconds, **computing(self.workers)
            ),
        )

    def _write(self, record: EvalRecord, tally: Tally) -> None:
        """Write the files; the record comes last, for where it is, all is."""
        points = tally.points()
        shown = [
            (places, x_adv) for places, x_adv in (tally.shown(), tally.closest()) if len(places)
        ]
        if shown:
            places = torch.cat([places for places, _ in shown])
            rows, ids = places.numpy(), self.subject.points.ids[places]
            pixels = self.subject.points.images.take(ids)
            gallery = Gallery(
                ids=ids.numpy(),
                x=checks.unit_range(pixels, boxed=False).cpu().numpy(),
                x_adv=np.concatenate([x_adv for _, x_adv in shown]),
                labels=points.labels[rows],
                clean_predictions=points.clean_predictions[rows],
                adversarial_predictions=points.adversarial_predictions[rows],
                margins=points.margins[rows],
            )
            gallery.write(self.folder.gallery(record.stem))
        points.write(self.path.with_name(record.stem + ".npz"))
        record.write(self.path.with_name(record.stem + ".json"))


def remarks_of(attack: Attack, threat: ThreatModel, images: Images) -> list[str]:
    """Say in what an attack on images differs from what the names of both promise."""
    remarks = list(attack.remarks(len(images.classes), threat))
    if (place := target_class(threat.target, images.classes)) is not None:
        count = int((images.labels == place).sum())
        remarks.append(f"the {count} points whose label is the target are left out")
    if threat.norm == "none":
        remarks.append("perturbations are not bounded by a norm: no ball was checked")
    return [*remarks, remark] if (remark := remark_of(images)) else remarks


def finished(path: Path) -> EvalRecord | None:
    """Read the evaluation whose files begin with `path`, if it ended and is undamaged."""
    record, points = (path.with_name(path.name + ending) for ending in (".json", ".npz"))
    if not (record.exists() and points.exists()):
        return None
    try:
        EvalPoints.read(points)
        return EvalRecord.read(record)
    except BadValueError:
        return None
