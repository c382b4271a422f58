"""Which attacks of other libraries work here: writes the tables of docs/bridges.md.

    python benchmarks/bridges.py --points 5 --seconds 8

Runs every attack of the bridges as `robustkit eval` does, with its default options, in its first
norm, on the first points of the digits model of the zoo; CPU, one thread, seed 0.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import torch

from robustkit.catalog import build, installed
from robustkit.cli.sources import find_model, test_part
from robustkit.engine.evaluate import evaluate
from robustkit.engine.identity import hash_module
from robustkit.errors import RobustkitError
from robustkit.models.files import load_model
from robustkit.records import RunFolder
from robustkit.threat import ThreatModel, format_eps

PAGE = Path(__file__).parents[1] / "docs" / "bridges.md"
MODEL = "zoo:digits-policy-gradient"
SIZES = {"linf": 0.2, "l2": 1.5, "l1": 6.0, "none": math.inf}
BRIDGES = {"art": "adversarial-robustness-toolbox", "foolbox": "foolbox"}
TABLES = "## What works"
"""Where the page's own words end."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [entry.name for entry in installed().of_kind("attack")]
    rows = []
    for name in names:
        if name.split(":")[0] in BRIDGES:
            rows.append(row_of(name, options.points, options.seconds))
            print(rows[-1], flush=True)
    own = PAGE.read_text("utf-8").partition(TABLES)[0]
    lines = [own + TABLES, "", introduction(options.points, options.seconds), ""]
    lines += ["| attack | norms | broken | passes | CPU seconds | |", "|---|---|---|---|---|---|"]
    lines += [*rows, "", "## What is left out", "", "| class | why |", "|---|---|"]
    for library in BRIDGES:
        left_out = import_module(f"robustkit_plugins.{library}_bridge.table").LEFT_OUT
        lines += [f"| {library}: {name} | {why} |" for name, why in left_out.items()]
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")


def introduction(points: int, seconds: float) -> str:
    """Say what the table is of."""
    libraries = ", ".join(f"{name} {version(name)}" for name in [*BRIDGES.values(), "torch"])
    sizes = ", ".join(
        "no norm" if norm == "none" else f"{norm} {format_eps(size)}"
        for norm, size in SIZES.items()
    )
    return (
        f"By `benchmarks/bridges.py`: {libraries}; `{MODEL}`, {points} points, seed 0, each attack"
        f" in the first of its norms ({sizes}), default options but {seconds:g} seconds (by the"
        " clock) a point, on one thread of a shared machine. Broken: of those"
        " points that the model is right on; passes, forward and backward, and CPU seconds are a"
        " point's; weak: it may miss what a search would find."
    )


def row_of(name: str, points: int, seconds: float) -> str:
    """Run one attack; give its row of the table."""
    loaded = load_model(find_model(MODEL), "cpu")
    part = test_part(loaded.record["data"])
    attack = build("attack", {"name": name, "seconds": seconds})
    began = time.process_time()
    try:
        (record,) = evaluate(
            loaded.module,
            part.images,
            [attack],
            [ThreatModel(attack.norms[0], SIZES[attack.norms[0]])],
            folder=RunFolder(Path(tempfile.mkdtemp())),
            model_name=MODEL,
            model_hash=hash_module(loaded.module),
            data=part.data,
            limit=points,
            device="cpu",
        )
    except RobustkitError as error:
        return f"| `{name}` | {', '.join(attack.norms)} | | | | does not work: {error} |"
    (found,) = record.parts
    notes = ["weak"] if attack.weak else []
    notes += [f"out of time: {found.stopped}"] if found.stopped else []
    n = found.attacked
    return (
        f"| `{name}` | {', '.join(attack.norms)} | {found.broken} of {n}"
        f" | {found.forwards / n:.0f} + {found.backwards / n:.0f}"
        f" | {(time.process_time() - began) / n:.2f} | {'; '.join(notes)} |"
    )


if __name__ == "__main__":
    main()
