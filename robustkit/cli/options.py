"""Options that several commands share."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from robustkit.errors import BadValueError

if TYPE_CHECKING:
    from robustkit.engine.limits import Limits
    from robustkit.interfaces import Architecture

Setting = tuple[str, Any]

Dataset = Annotated[
    str, typer.Option("--dataset", help="A data set: digits, mnist, cifar10, folder, ...")
]
DataPath = Annotated[
    str, typer.Option("--data", help="The data set's file or folder, where it needs one.")
]
Classes = Annotated[
    str, typer.Option("--classes", help="Only these classes, as airplane,horse; labels follow.")
]
Imbalance = Annotated[
    float | None,
    typer.Option("--imbalance", help="Share of its training points that the last class keeps."),
]
Arch = Annotated[
    str,
    typer.Option(
        "--arch",
        help="What bare weights belong to: NAME, with --set model.width=16, or your own"
        " module:callable, called with (shape, classes).",
    ),
]
Mean = Annotated[str, typer.Option("--mean", help="Normalisation of bare weights: 0.49,0.48,0.45.")]
Std = Annotated[str, typer.Option("--std", help="As --mean; of pixels in [0, 1].")]
Unsafe = Annotated[
    bool, typer.Option("--unsafe", help="Run whatever the file holds: only if you trust it.")
]
Model = Annotated[str, typer.Argument(help="A model file, a run folder, or zoo:NAME.")]
Norm = Annotated[str, typer.Option("--norm", help="linf, l2 or l1; the model's own if absent.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Test points; all if absent.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of order and attacks.")]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Points at a time; verdicts don't depend.")
]
BATCH_SIZE = 128
Box = Annotated[
    str,
    typer.Option(
        "--box",
        metavar="on|off",
        help="off: perturbed pixels may leave [0, 1]. The model's or recipe's own if absent.",
    ),
]
Quantize = Annotated[
    int | None,
    typer.Option(
        "--quantize",
        metavar="BITS",
        help="Only images count that a file of so many bits a channel holds, as 8.",
    ),
]
Target = Annotated[
    str,
    typer.Option(
        "--target",
        help="Only what is taken for this class counts: its name or number, random (one for each"
        " point), or least-likely.",
    ),
]
Sizes = Annotated[
    str,
    typer.Option(
        "--eps",
        help="Sizes, as 4/255,8/255, or start:stop:step, as 0:4:0.25; the model's own if absent.",
    ),
]
Settings = Annotated[
    list[str], typer.Option("--set", help="Set one key, as a.b=value; may be given again.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Processes = Annotated[
    int,
    typer.Option("--processes", min=1, help="That share the points: a thread each, or a GPU each."),
]
Budget = Annotated[
    str,
    typer.Option(
        "--budget",
        help="Stop attacking after 90s, 10m or 2h, or so many passes, as 200000: each forward and"
        " each backward of an image is one.",
    ),
]
Precision = Annotated[
    float | None,
    typer.Option(
        "--precision",
        help="Stop once the 95 % interval of robust accuracy is narrower than this, from its low to"
        " its high end, in percentage points.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where the run was interrupted.")]


def data_settings(dataset: str, path: str, own: Any = None) -> list[Setting]:
    """Say in recipe keys what --dataset and --data mean; `own` is the data set without them."""
    settings: list[Setting] = [("data.name", dataset)] if dataset else []
    if path:
        settings.append((f"data.{_place_option(dataset or own)}", path))
    return settings


def _place_option(data: Any) -> str:
    """Name the option that says where a data set's files are: root, path, or its own data's."""
    from robustkit.catalog import installed

    table = data if isinstance(data, Mapping) else {"name": data}
    if table.get("name") == "subset":
        return f"data.{_place_option(table.get('data'))}"
    fields = installed().load("dataset", table["name"]).model_fields if table.get("name") else ()
    return "root" if "root" in fields else "path"


def narrowed(
    table: Mapping[str, Any], settings: Sequence[Setting], classes: str, imbalance: float | None
) -> tuple[dict[str, Any], list[Setting]]:
    """Take a subset of the data that a recipe's tables and settings name, where flags ask for one.

    Gives the tables, and the settings that are still to be made.
    """
    from robustkit.recipe import Recipe, override

    if not classes and imbalance is None:
        return dict(table), list(settings)
    of_data = [setting for setting in settings if setting[0].split(".")[0] == "data"]
    data = override({"data": Recipe().data, **table}, of_data)["data"]
    if not isinstance(data, dict) or data.get("name") != "subset":
        data = {"name": "subset", "data": data}
    if classes:
        data["classes"] = split_list(classes)
    if imbalance is not None:
        data["imbalance"] = imbalance
    return {**table, "data": data}, [s for s in settings if s not in of_data]


def free_folder(name: str) -> Path:
    """Give runs/NAME, or the first of runs/NAME-2, -3, ... that is not there."""
    folder = Path("runs") / name
    number = 2
    while folder.exists():
        folder = Path("runs") / f"{name}-{number}"
        number += 1
    return folder


def require_writable(folder: Path) -> None:
    """Refuse at once a folder that a run could not be written to."""
    existing = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise BadValueError(f"cannot write '{folder}': '{existing}' is a file")
    if not os.access(existing, os.W_OK):
        raise BadValueError(f"cannot write '{folder}': no permission in '{existing}'")


def architecture(name: str, settings: Iterable[str] = ()) -> Architecture | None:
    """Build the architecture that --arch and --set model.option=value name, where they do."""
    from robustkit.catalog import build
    from robustkit.recipe import override, parse_override

    settings = list(settings)
    if not name:
        if settings:
            raise BadValueError(f"--set '{settings[0]}' is an option of --arch, which is not given")
        return None
    if ":" in name:
        own_code(name)
    table = override({"model": {"name": name}}, map(parse_override, settings))["model"]
    return cast("Architecture", build("model", table))


def own_code(target: str) -> None:
    """Let "module:callable" be an architecture; modules in the current folder are found."""
    from robustkit.catalog import allow_code

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    allow_code(target)


SECONDS = {"s": 1, "m": 60, "h": 3600}
MOST_SIZES = 1000
"""Of a range; more are a slip of the pen."""


def sizes(text: str) -> list[float]:
    """Read perturbation sizes, as 4/255,8/255 or start:stop:step, the stop included; each once.

    Those of a range are exact to rounding. Raises BadValueError.
    """
    found = (size for part in split_list(text) for size in _size_range(part))
    return list(dict.fromkeys(found))


def _size_range(text: str) -> list[float]:
    from robustkit.threat import parse_eps

    if ":" not in text:
        return [parse_eps(text)]
    parts = text.split(":")
    finite = all(math.isfinite(parse_eps(part)) for part in parts)
    if not finite or len(parts) != 3:
        raise BadValueError(f"--eps '{text}' is no range; write start:stop:step, as 0:4:0.25")
    start, stop, step = map(Fraction, parts)
    if step == 0 or stop < start:
        raise BadValueError(f"--eps '{text}' goes nowhere; write start:stop:step, as 0:4:0.25")
    steps = (stop - start) // step
    if steps >= MOST_SIZES:
        raise BadValueError(f"--eps '{text}' is {steps + 1} sizes; at most {MOST_SIZES} are taken")
    return [float(start + i * step) for i in range(steps + 1)]


def limits(budget: str, precision: float | None) -> Limits:
    """Read --budget and --precision. Raises BadValueError."""
    from robustkit.engine.limits import Limits

    if precision is not None and not 0 < precision < 100:
        raise BadValueError(f"--precision {precision:g} is no width between 0 and 100 points")
    if not budget:
        return Limits(precision=precision)
    read = re.fullmatch(r"(\d+\.?\d*)([smh]?)", budget)
    amount = float(read[1]) if read else 0
    if not read or not amount:
        raise BadValueError(
            f"--budget '{budget}' is neither a time, as 90s, 10m or 2h, nor passes, as 200000"
        )
    if read[2]:
        return Limits(seconds=amount * SECONDS[read[2]], precision=precision)
    return Limits(passes=amount, precision=precision)


def box(text: str) -> tuple[float, float]:
    """Give the smallest and largest pixel that --box means. Raises BadValueError."""
    if text not in ("on", "off"):
        raise BadValueError(f"--box '{text}' is neither on nor off")
    return (0.0, 1.0) if text == "on" else (-math.inf, math.inf)


def numbers(flag: str, text: str) -> tuple[float, ...] | None:
    """Read "0.49,0.48,0.45", a number a channel, where it is given."""
    try:
        return tuple(map(float, split_list(text))) or None
    except ValueError:
        raise BadValueError(f"{flag} '{text}' is not numbers, such as 0.49,0.48,0.45") from None


def split_list(text: str) -> list[str]:
    """Split "a,b" at commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def chosen(**options: Any) -> Iterable[tuple[str, Any]]:
    """Give the options that were set, as (recipe path, value); `a__b` stands for a.b."""
    return [(name.replace("__", "."), v) for name, v in options.items() if v not in (None, "")]
