"""Numbers, threats and components the way a report writes them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robustkit.records import FIXED, EvalRecord, GeneratedRecord, Rate, Stopped, Threat


def plain(value: object) -> str:
    """Give text without control characters: a record may come from a stranger."""
    return "".join(c if c.isprintable() else " " for c in str(value)).strip()


def percent(share: float) -> str:
    """Write a share in [0, 1] in percent."""
    return f"{100 * share:.1f} %"


def interval(rate: Rate) -> str:
    """Write the ends of a 95 % interval, in percent."""
    return f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def with_interval(rate: Rate | None) -> str:
    """Write a rate and its interval."""
    if rate is None:
        return "–"
    return f"{percent(rate.value)} {interval(rate)}" if rate.n else "no points"


def points(record: EvalRecord) -> str:
    """Write how many points an evaluation is of: "96 of 360" where a limit stopped it."""
    of = f" of {record.stopped.of}" if record.stopped else ""
    return f"{record.robust.n}{of}"


def limit(stopped: Stopped) -> str:
    """Write what stopped an evaluation."""
    if stopped.unit == "points":
        return f"an interval below {stopped.limit:g} points"
    if stopped.unit == "seconds":
        return f"a budget of {duration(stopped.limit)}"
    return f"a budget of {stopped.limit:,.0f} passes"


def duration(seconds: float) -> str:
    """Write a time the way people say it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def threat_text(threat: Threat) -> str:
    """Write a threat; "smallest" where the attack sought the smallest perturbation."""
    model = threat.model()
    endless = math.isinf(model.eps) and model.norm != "none"
    return plain(f"{model.norm} smallest{model.terms}" if endless else model)


def options(table: Mapping[str, Any]) -> str:
    """Write a component's options in a line: "steps=10, loss=margin"."""
    return ", ".join(f"{key}={_value(value)}" for key, value in table.items() if key != "name")


def component(table: Mapping[str, Any]) -> str:
    """Write a component in a line: "pgd(steps=10)"."""
    inner = options(table)
    return f"{plain(table.get('name', '?'))}{f'({inner})' if inner else ''}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return component(value) if "name" in value else "{" + options(value) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return f"{value:g}" if isinstance(value, float) else plain(value)


def listed(items: Sequence[str], comma: str = ", ") -> str:
    """Write things in a line; of more than four the first two, the last, and how many there are."""
    if len(items) <= 4:
        return comma.join(items)
    return f"{comma.join(items[:2])}{comma}…{comma}{items[-1]} ({len(items)} in all)"


def generated_points(record: GeneratedRecord) -> str:
    """Say how many generated points a run was trained with, in what share, and whose they are."""
    maker = plain(record.made.get("generator", {}).get("name", ""))
    made = f" by {maker}" if maker else ""
    share = f"{100 * record.share:g} % of each batch"
    return f"{record.n:,}{made}, {share} ({plain(Path(record.path).name)}, {record.digest})"


def told_apart(named: Sequence[tuple[str, str]]) -> list[str]:
    """Give the names of (name, options), with the options where several share a name."""
    shared = Counter(name for name, _ in named)
    return [f"{n} ({inner or 'defaults'})" if shared[n] > 1 else n for n, inner in named]


def label(record: EvalRecord) -> str:
    """Name an evaluation: attack and threat."""
    return f"{attack_name(record)} {threat_text(record.threat)}"


def attack_name(record: EvalRecord) -> str:
    """Name an attack; images that were made beforehand by what made them, and on which model."""
    name, made = record.attack.get("name", "?"), record.attack.get("attack")
    if name != FIXED:
        return plain(name)
    if not isinstance(made, Mapping):
        return f"fixed images {plain(record.attack.get('digest', ''))}"
    return f"{plain(made.get('name', '?'))} made on {plain(record.attack.get('model'))}"
