"""Sets swift beside AutoAttack: robust accuracy, passes and seconds, on the same points.

    python benchmarks/swift.py run REFERENCE DATA --name mnist-lenet-at.linf-0.25 --seed 0
    python benchmarks/swift.py run REFERENCE DATA --name ... --like RUN/eval/autoattack-....json
    python benchmarks/swift.py table [RUN ...]

REFERENCE and DATA are those of agreement.py. `run` judges the points of the reference's verdicts,
which agreement.py has judged by AutoAttack, or those of a record of AutoAttack, and writes what it
found to benchmarks/results/. `table` sets all of that side by side, and the records of both attacks
in run folders. A backward pass counts as COST forward ones.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from agreement import load_model, load_points, our_runs, reference_runs, threat_of
from agreement import verdicts_of as judged
from common import RESULTS, commit, device_name
from torch import Tensor

from robustkit.arrays import EvalPoints
from robustkit.attacks.swift import Swift
from robustkit.catalog import build
from robustkit.engine.device import keep_memory
from robustkit.records import EvalRecord, RunFolder

COST = {"mnist-lenet-at": 1.1, "cifar10-resnet18w16-at": 1.5}
"""Of a backward pass, in forward ones, of the plain model (measured: 195 and 409 microseconds for
LeNet's forward and both, 1173 and 2974 for the ResNet's)."""
ANY = 1.1


def passes(parts: Sequence[dict[str, Any]], n: int, cost: float) -> float:
    """Give the passes a point, in forward ones."""
    return sum(float(p["forwards"]) + cost * float(p["backwards"]) for p in parts) / n


def recorded(record: EvalRecord, cost: float) -> dict[str, Any]:
    """Give a record's robust accuracy, passes and seconds."""
    parts = [part.model_dump() for part in record.parts]
    return {
        "robust": record.robust.value,
        "passes": passes(parts, record.robust.n, cost),
        "seconds": sum(part.seconds for part in record.parts),
    }


def of_autoattack(name: str, like: Path | None) -> list[dict[str, Any]]:
    """Give what AutoAttack found, by seed."""
    cost = COST[name.split(".")[0]]
    if like is not None:
        return [recorded(EvalRecord.read(like), cost)]
    return [
        {
            "robust": run["robust"],
            "passes": passes(list(run["parts"].values()), run["n"], cost),
            "seconds": run["seconds"],
        }
        for run in our_runs(name)
    ]


def points_of(
    reference: Path, data: Path, name: str, like: Path | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Give images, labels and ids: the reference's points, or those of a record."""
    if like is None:
        rows = reference_runs(reference, name)[0]["points"]
        return *load_points(data, rows), torch.tensor([row["index"] for row in rows])
    record, points = EvalRecord.read(like), EvalPoints.read(like.with_suffix(".npz"))
    ids = torch.from_numpy(points.ids)
    images = build("dataset", record.data).split("test")
    return images.take(ids).float() / 255, images.labels[ids], ids


def run(reference: Path, data: Path, name: str, seed: int, like: Path | None) -> None:
    """Judge the points by swift, and write that beside what AutoAttack found."""
    torch.set_num_threads(1)
    keep_memory()
    x, y, ids = points_of(reference, data, name, like)
    model = load_model(reference, name.split(".")[0])
    began = time.process_time()
    found = judged(model, x, y, threat_of(name), seed, ids, Swift())
    seconds = round(time.process_time() - began, 1)
    record = {
        "schema": 1,
        "name": name,
        "n": len(x),
        "seed": seed,
        "device": device_name(torch.device("cpu"), 1),
        "torch": torch.__version__,
        "commit": commit(),
        "seconds": seconds,
        "robust": found["robust"],
        "passes": passes(list(found["parts"].values()), len(x), COST[name.split(".")[0]]),
        "parts": found["parts"],
        "autoattack": of_autoattack(name, like),
    }
    file = RESULTS / f"swift-{name}.{len(x)}.seed{seed}.json"
    file.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(f"{name} seed {seed}: robust {found['robust']:.4f} in {seconds} s", flush=True)


def rows(runs: Sequence[Path]) -> dict[tuple[str, int], dict[str, list[dict[str, Any]]]]:
    """Gather both attacks' findings, by model with threat and by number of points."""
    found: dict[tuple[str, int], dict[str, list[dict[str, Any]]]] = {}
    for file in sorted(RESULTS.glob("swift-*.seed*.json")):
        record = json.loads(file.read_text("utf-8"))
        row = found.setdefault((record["name"], record["n"]), {"autoattack": [], "swift": []})
        row["autoattack"] = record["autoattack"]
        row["swift"].append(record)
    for folder in runs:
        for file in sorted(RunFolder(folder).evaluations.glob("*.json")):
            record = EvalRecord.read(file)
            key = (f"{folder.name}, {record.threat.norm} {record.threat.eps:g}", record.robust.n)
            row = found.setdefault(key, {"autoattack": [], "swift": []})
            if record.attack["name"] in row:
                row[record.attack["name"]].append(recorded(record, ANY))
    return {key: row for key, row in found.items() if row["autoattack"] and row["swift"]}


def table(runs: Sequence[Path]) -> list[str]:
    """Make the table, a row for each model with threat."""
    lines = [
        "| model, threat | points | robust %: autoattack | swift | difference of the means "
        "| passes a point: autoattack | swift | share | seconds: autoattack | swift |",
        "|---" * 10 + "|",
    ]
    for (name, n), row in rows(runs).items():
        mean = {
            attack: {
                key: sum(run[key] for run in found) / len(found)
                for key in ("robust", "passes", "seconds")
            }
            for attack, found in row.items()
        }
        standard, swift = mean["autoattack"], mean["swift"]
        cells = [
            name,
            str(n),
            *(" / ".join(f"{100 * run['robust']:.1f}" for run in row[a]) for a in mean),
            f"{100 * (swift['robust'] - standard['robust']):+.2f}",
            *(f"{mean[a]['passes']:.0f}" for a in mean),
            f"{100 * swift['passes'] / standard['passes']:.1f} %",
            *(f"{mean[a]['seconds']:.0f}" for a in mean),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    judge = commands.add_parser("run", help="judge points by swift")
    judge.add_argument("reference", type=Path)
    judge.add_argument("data", type=Path)
    judge.add_argument("--name", default="mnist-lenet-at.linf-0.25", help="MODEL.NORM-EPS")
    judge.add_argument("--seed", type=int, action="append", help="may be given several times")
    judge.add_argument("--like", type=Path, help="a record of autoattack, for its points")
    show = commands.add_parser("table", help="set both attacks side by side")
    show.add_argument("runs", type=Path, nargs="*", help="run folders with records of both")
    given = parser.parse_args()
    if given.command == "table":
        print("\n".join(table(given.runs)))
    else:
        for seed in given.seed or [0]:
            run(given.reference, given.data, given.name, seed, given.like)


if __name__ == "__main__":
    main()
