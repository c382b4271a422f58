"""Runs as Markdown tables, for a paper or a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from robustkit.report import costs, summary, words
from robustkit.report.accuracies import Row, Sweep, apart, from_parts, from_points, rows, sweeps
from robustkit.report.analysed import analysed
from robustkit.report.collect import Evaluation, Run
from robustkit.report.comparison import compare


def render(runs: Sequence[Run]) -> str:
    """Write a report of one run, or of several side by side, as Markdown."""
    lines = list(_comparison(runs)) if len(runs) > 1 else []
    for run in runs:
        lines += _run(run)
    return "\n".join(lines).rstrip() + "\n"


def escape(text: object) -> str:
    """Make text mean itself in Markdown, in a table or out of one."""
    return re.sub(r"([\\`*_<>|#~]|(?<=\])\()", r"\\\1", words.plain(text))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join(":--" if i < left else "--:" for i in range(len(head))) + "|"
    for row in rows:
        yield "| " + " | ".join(escape(cell) for cell in row) + " |"
    yield ""


def _comparison(runs: Sequence[Run]) -> Iterator[str]:
    found = compare(runs)
    yield from ("# Runs compared", "")
    head = ("Run", "Clean [95 %]", *(f"{escape(column.name)} [95 %]" for column in found.columns))
    rows = []
    for i, run in enumerate(runs):
        cells = [found.clean[i], *(column.cell(i) for column in found.columns)]
        rows.append([run.name, *map(words.with_interval, cells)])
    yield from _table(head, rows)
    for note in found.notes:
        yield from (escape(note), "")


def _run(run: Run) -> Iterator[str]:
    yield from (f"# {escape(run.title)}", "")
    if run.source:
        yield from (f"Stands for: {escape(run.source)}", "")
    yield from (f"**{escape(summary.verdict(run))}**", "")
    for note in summary.notices(run):
        yield from (f"> Warning: {escape(note)}", "")
    if accuracies := rows(run):
        yield from ("## Accuracies", "")
        yield from _accuracies(accuracies)
    yield from _costs(list(costs.rows(run)))
    swept = sweeps(run)
    for sweep in (*swept, *from_points(run), *from_parts(run)):
        yield from _sweep(sweep)
    for evaluation in apart(run):
        if len(evaluation.record.parts) > 1 and not evaluation.record.separate:
            yield from _parts(evaluation)
    yield from _analyses(run)
    yield from ("## What was run", "")
    yield from _table(("What", "Value"), summary.facts(run), left=2)
    for evaluation in apart(run):
        yield from (f"### {escape(words.label(evaluation.record))}: where it comes from", "")
        yield from _table(("What", "Value"), summary.evaluation_origins(evaluation.record), left=2)
    for sweep in swept:
        yield from (f"### Accuracy by eps ({escape(sweep.where)}): where it comes from", "")
        yield from _table(("What", "Value"), sweep.origins, left=2)


def _accuracies(rows: Sequence[Row]) -> Iterator[str]:
    head = ("Attack", "Options", "Threat", "Points", "Clean [95 %]", "Robust [95 %]")
    yield from _table(
        head,
        (
            (
                row.attack,
                row.options,
                row.threat,
                row.points,
                words.with_interval(row.clean),
                row.instead or words.with_interval(row.robust),
            )
            for row in rows
        ),
        left=3,
    )
    for row in rows:
        for kind, notes in (("Warning", row.warnings), ("Remark", row.remarks)):
            for note in notes:
                yield from (
                    f"> {kind}, {escape(row.attack)} {escape(row.threat)}: {escape(note)}",
                    "",
                )


def _costs(rows: Sequence[costs.Row]) -> Iterator[str]:
    if not rows:
        return
    yield from ("## What errors cost", "", escape(costs.CAPTION), "")
    head = (
        "Attack",
        "Threat",
        "Metric",
        "Points",
        "Clean [95 %]",
        "Adversarial [95 %]",
        "S [95 %]",
    )
    yield from _table(
        head,
        ((r.attack, r.threat, r.metric, str(r.n), r.clean, r.adversarial, r.score) for r in rows),
        left=3,
    )
    for row in rows:
        yield f"- {escape(row.attack)} {escape(row.threat)}: {escape(row.dearest)}"
        if row.remark:
            yield f"  - Remark: {escape(row.remark)}"
    yield ""


def _analyses(run: Run) -> Iterator[str]:
    shown, unshown = analysed(run)
    if shown or unshown:
        yield from ("## Analyses", "")
    for text in unshown:
        yield from (f"> Remark: {escape(text)}", "")
    for each in shown:
        yield from (f"### {escape(each.title)} ({escape(each.file)})", "")
        for text in each.remarks:
            yield from (f"> Remark: {escape(text)}", "")
        yield from (*(f"    {line}" for line in each.text.splitlines()), "")


def _sweep(sweep: Sweep) -> Iterator[str]:
    yield from (f"## Robust accuracy by {sweep.by} ({escape(sweep.where)})", "")
    yield from (
        escape(f"On {sweep.clean.n} points, clean {words.with_interval(sweep.clean)}:"),
        "",
    )
    yield from _table(
        (sweep.by, *(f"{escape(name)} [95 %]" for name, _ in sweep.attacks)),
        ((size, *map(words.with_interval, cells)) for size, cells in sweep.lines),
    )
    for kind, notes in (("Warning", sweep.warnings), ("Remark", sweep.remarks)):
        for note in notes:
            yield from (f"> {kind}, {escape(note)}", "")


def _parts(evaluation: Evaluation) -> Iterator[str]:
    yield from (f"### {escape(words.label(evaluation.record))}: its parts", "")
    head = ("Part", "Attacked", "Broken", "Robust after", "Forward", "Backward", "Seconds")
    yield from _table(
        head,
        (
            (
                part.record.name,
                str(part.record.attacked),
                str(part.record.broken),
                words.with_interval(part.robust_after),
                part.forwards,
                part.backwards,
                f"{part.record.seconds:.1f}",
            )
            for part in summary.parts(evaluation)
        ),
    )
    yield from ("Forward and backward: passes of the model for each attacked point.", "")
