"""What eval --metric adds: what errors cost, kept beside the evaluations and shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustkit.analysis.recorded import Named
    from robustkit.records import EvalRecord, RunFolder


def find(name: str) -> Named:
    """Find a label metric by its name or its file."""
    from robustkit.analysis.recorded import Named
    from robustkit.metric import find_metric

    return Named(name, find_metric(name))


def add(folder: RunFolder, records: Sequence[EvalRecord], named: Named) -> None:
    """Weigh the errors of evaluations, keep what they cost in their run, and show it.

    Those of broken attacks are passed over: their errors mean nothing.
    """
    from robustkit.analysis.recorded import Measured, cost_record
    from robustkit.arrays import EvalPoints
    from robustkit.report import costs

    found = []
    for record in records:
        if record.valid:
            points = EvalPoints.read(folder.evaluations / f"{record.stem}.npz")
            cost = cost_record(Measured(folder.path, record, points), named)
            cost.write(cost.file(folder))
            found.append((record, cost))
    if found:
        costs.show(found)
