"""What the terminal, Markdown and HTML all say of runs: verdicts, notices, facts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robustkit.analysis.statistics import rate
from robustkit.records import EvalRecord, PartRecord, Provenance, Rate, Stopped
from robustkit.report.collect import Evaluation, Run
from robustkit.report.measures import smallest_sizes, worst_cases
from robustkit.report.words import (
    attack_name,
    component,
    duration,
    generated_points,
    label,
    limit,
    options,
    percent,
    plain,
    threat_text,
    with_interval,
)
from robustkit.report.words import points as number_of_points


@dataclass(frozen=True)
class Part:
    """A line of the table of an attack's parts."""

    record: PartRecord
    options: str
    robust_after: Rate | None
    forwards: str
    """Passes an attacked point; "~" where they were spread evenly over points."""
    backwards: str


def headline(run: Run) -> Evaluation | None:
    """Choose the evaluation a verdict is about: the run's threat, autoattack, the lowest number.

    Images that were made on another model say least of what this one withstands, and then what a
    search for one class says.
    """
    threat = run.record and run.record.threat

    def order(evaluation: Evaluation) -> tuple[bool | float, ...]:
        record = evaluation.record
        return (
            not record.valid,
            record.transferred,
            record.separate,
            record.threat.target is not None,
            math.isinf(record.threat.eps),
            threat is not None and record.threat != threat,
            record.attack.get("name") != "autoattack",
            record.robust.value,
        )

    return min(run.evaluations, key=order, default=None)


def verdict(run: Run) -> str:
    """Say in one sentence how robust a run is."""
    chosen = headline(run)
    if chosen is None:
        return "Not evaluated yet."
    record = chosen.record
    points = f"{number_of_points(record)} {plain(record.part)} points"
    if record.stopped:
        points += f", stopped by {limit(record.stopped)}"
    clean = f"clean {with_interval(record.clean)}"
    attack = attack_name(record)
    if math.isinf(record.threat.eps):
        size = median_size(chosen)
        found = f"Median smallest {record.threat.norm} perturbation {size}"
        return f"{found} by {attack} on {points}; {clean}."
    if record.separate:
        return f"{mean_of_parts(record).capitalize()} under {attack} on {points}; {clean}."
    if record.threat.target is not None:
        return (
            f"Target reached on {reached(record)} of the {record.clean.count} points that are right"
            f" when clean, under {label(record)}; {clean} on {points}."
        )
    robust = with_interval(record.robust)
    return (
        f"Robust accuracy {robust} under {label(record)} on {points}{_worse(run, chosen)}; {clean}."
    )


def _worse(run: Run, chosen: Evaluation) -> str:
    """Say the worst case at the threat of a verdict, where other attacks lower its number."""
    for worst in worst_cases(run.evaluations):
        theirs = any(evaluation is chosen for evaluation in worst.evaluations)
        if theirs and worst.robust.count < chosen.record.robust.count:
            return f", {with_interval(worst.robust)} under all {len(worst.evaluations)} attacks"
    return ""


def reached(record: EvalRecord, robust: Rate | None = None) -> str:
    """Write the share of the points that are right when clean that was made into the target.

    `robust` stands for the record's own rate where several attacks are taken together.
    """
    clean, left = record.clean.count, (robust or record.robust).count
    return with_interval(rate(clean - left, clean))


def result(evaluation: Evaluation) -> str:
    """Say in a few words what an evaluation found."""
    record = evaluation.record
    if math.isinf(record.threat.eps):
        return f"smallest perturbations, {sizes(evaluation)}"
    if record.separate:
        return mean_of_parts(record)
    if record.threat.target is not None:
        return f"target reached on {reached(record)}"
    return f"robust {with_interval(record.robust)}"


def median_size(evaluation: Evaluation) -> str:
    """Write the median size of the smallest perturbations of the clean-correct points."""
    import numpy as np

    found = np.sort(smallest_sizes(evaluation))
    # The lower median: the mean of two would be infinite where half of the points are unbroken.
    median = float(found[(len(found) - 1) // 2]) if found.size else math.nan
    if math.isnan(median):
        return "of no point"
    return f"{median:.4g}" if math.isfinite(median) else "beyond the search"


def sizes(evaluation: Evaluation) -> str:
    """Write median and mean of the smallest sizes; the mean is that of the broken points."""
    import numpy as np

    found = smallest_sizes(evaluation)
    broken = found[np.isfinite(found)]
    mean = f", mean {broken.mean():.4g}" if broken.size else ""
    left = f", {found.size - broken.size} unbroken" if broken.size < found.size else ""
    median = median_size(evaluation)
    return f"median {median}{mean}{left}" if found.size else f"median size {median}"


def mean_of_parts(record: EvalRecord) -> str:
    """Write the mean robust accuracy over parts that were measured apart."""
    left = [record.clean.count - part.broken for part in record.parts]
    return f"mean {percent(sum(left) / len(left) / max(record.clean.n, 1))} of {len(left)}"


def notices(run: Run) -> list[str]:
    """Say what a reader of this run must know before its numbers."""
    record, found = run.record, []
    if record and record.stopped:
        done = f"after {record.epochs_done} of {record.epochs} epochs"
        found.append(f"Training stopped {done}: {plain(record.stopped)}")
    elif record and not record.finished:
        found.append(
            f"Training is unfinished: {record.epochs_done} of {record.epochs} epochs done."
        )
    if len({e.record.model_hash for e in run.evaluations}) > 1:
        found.append("The evaluations are of different weights: the model changed between them.")
    chosen = headline(run)
    if run.unfinished:
        names = ", ".join(plain(name) for name in run.unfinished)
        found.append(f"Not ended, to be gone on with by eval --resume: {names}")
    return found + (list(warnings(chosen.record)) if chosen else [])


def warnings(record: EvalRecord) -> tuple[str, ...]:
    """Give an evaluation's warnings, and one for each part that left the threat model."""
    broken = (
        f"'{plain(part.name)}' is broken: {part.rejected} of its proposals lay outside the threat,"
        " so this number means nothing"
        for part in record.parts
        if part.rejected
    )
    return (*(plain(text) for text in record.warnings), *broken)


def remarks(record: EvalRecord) -> tuple[str, ...]:
    """Give an evaluation's remarks, among them over how many passes it was judged."""
    found = tuple(plain(text) for text in record.remarks)
    if record.stopped:
        left = record.stopped.of - record.robust.n
        found += (
            f"stopped by {limit(record.stopped)}: the number is of the first {record.robust.n} of"
            f" {record.stopped.of} points in seeded order; {left} were not attacked",
        )
    if record.judged_by > 1:
        found += (f"each verdict was judged over {record.judged_by} seeded passes",)
    if any(part.spread for part in record.parts):
        found += (
            "passes marked ~ are spread evenly: the attack did not say which points it asked",
        )
    return found


def parts(evaluation: Evaluation) -> list[Part]:
    """Give each part of an attack with the robust accuracy that it left."""
    record, left, found = evaluation.record, evaluation.record.clean.count, []
    for part in record.parts:
        left = (record.clean.count if record.separate else left) - part.broken
        several = math.isinf(record.threat.eps) or record.threat.target is not None
        after = None if several else rate(left, record.clean.n)
        passes = (_passes(part, part.forwards), _passes(part, part.backwards))
        found.append(Part(part, options(part.options), after, *passes))
    return found


def _passes(part: PartRecord, count: float) -> str:
    each = f"{count / part.attacked:,.1f}" if part.attacked else "–"
    return f"~{each}" if part.spread else each


def facts(run: Run) -> list[tuple[str, str]]:
    """Give what was run, as (name, value): model, data, threat, seed, versions, device, ..."""
    record = run.record
    if record is None:
        return _evaluation_only(run)
    origin = record.provenance
    selected = f"epoch {record.best_epoch}" if record.best_epoch is not None else "none"
    by = f", by {plain(record.selected_by)}" if record.selected_by else ""
    found = [
        ("Model", f"{component(record.model)}, {record.parameters:,} parameters"),
        ("Data", component(record.data)),
        *([("Data differ", plain(record.data_remark))] if record.data_remark else []),
        ("Images", f"{' × '.join(map(str, record.shape))}, {len(record.classes)} classes"),
        ("Points", f"{record.n_train:,} for training, {record.n_heldout:,} held out"),
        *([("Generated points", generated_points(record.generated))] if record.generated else []),
        ("Trainer", component(record.trainer)),
        ("Threat", threat_text(record.threat)),
        ("Epochs", f"{record.epochs_done} of {record.epochs}"),
        ("Weights kept", f"{selected}{by}"),
    ]
    for name, held in (
        ("clean", record.heldout_clean),
        ("adversarial", record.heldout_adversarial),
    ):
        if held is not None:
            found.append(
                (f"Held-out {name} (selection)", f"{with_interval(held)}, {held.n} points")
            )
    return [*found, ("Seed", str(record.seed)), *origins(origin)]


def _evaluation_only(run: Run) -> list[tuple[str, str]]:
    if not run.evaluations:
        return []
    record = run.evaluations[0].record
    return [
        ("Model", f"{plain(record.model)} (weights {plain(record.model_hash)})"),
        ("Data", f"{component(record.data)}, {plain(record.part)} part"),
        ("Classes", str(len(record.classes))),
        ("Seed", str(record.seed)),
        *origins(record.provenance),
    ]


def origins(origin: Provenance) -> list[tuple[str, str]]:
    """Give where a number comes from, as (name, value)."""
    versions = ", ".join(f"{plain(k)} {plain(v)}" for k, v in origin.versions.items())
    found = [
        (
            "Device",
            f"{plain(origin.device)}, {_many(origin.processes, 'process', 'es')} of"
            f" {_many(origin.threads, 'thread', 's')}",
        ),
        ("Versions", versions),
        ("Commit", plain(origin.commit)),
        ("Command", plain(origin.command)),
        ("Started", plain(origin.started)),
        ("Time", duration(origin.seconds)),
    ]
    return [(name, value) for name, value in found if value]


def _many(n: int, noun: str, plural: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}{plural}"


def evaluation_origins(record: EvalRecord) -> list[tuple[str, str]]:
    """Give where an evaluation's numbers come from, as (name, value)."""
    which = f", first {record.limit} in seeded order" if record.limit else ""
    if record.named:
        which = f", {record.limit} by their ids"
    return [
        ("Model", f"{plain(record.model)} (weights {plain(record.model_hash)})"),
        ("Data", f"{component(record.data)}, {plain(record.part)} part{which}"),
        ("Attack", component(record.attack)),
        ("Threat", threat_text(record.threat)),
        *([("Stopped", _stopped(record, record.stopped))] if record.stopped else []),
        ("Seed", str(record.seed)),
        *origins(record.provenance),
    ]


def _stopped(record: EvalRecord, stopped: Stopped) -> str:
    return f"by {limit(stopped)}, after {number_of_points(record)} points"
