"""Checks that verdicts do not depend on the batch, and that the engine agrees with the reference.

    python benchmarks/batch_sizes.py REFERENCE DATA --name mnist-lenet-at.linf-0.25 --points 100

REFERENCE and DATA as for agreement.py. Runs the whole evaluation engine, not a loop of its own, at
each batch size on the first points of the reference; one thread.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from agreement import load_model, load_points, reference_runs, threat_of
from common import RESULTS

from robustkit.arrays import EvalPoints
from robustkit.attacks.autoattack import AutoAttack
from robustkit.data.images import ArrayImages
from robustkit.engine.evaluate import evaluate
from robustkit.engine.identity import hash_module
from robustkit.records import RunFolder


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reference", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--name", default="mnist-lenet-at.linf-0.25")
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--sizes", default="300,64,7")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.reference, options.name.split(".")[0])
    theirs = [
        run["points"][: options.points] for run in reference_runs(options.reference, options.name)
    ]
    x, y = load_points(options.data, theirs[0])
    images = ArrayImages((x * 255).round().byte().numpy(), y.numpy(), [str(k) for k in range(10)])
    found: dict[int, EvalPoints] = {}
    seconds: dict[int, float] = {}
    for size in map(int, options.sizes.split(",")):
        folder = RunFolder(Path(tempfile.mkdtemp()))
        (record,) = evaluate(
            model,
            images,
            [AutoAttack()],
            [threat_of(options.name)],
            folder=folder,
            model_name=options.name,
            model_hash=hash_module(model),
            data={"name": options.name},
            batch_size=size,
            device="cpu",
        )
        ((_, found[size]),) = folder.results()
        seconds[size] = round(sum(part.seconds for part in record.parts), 1)
        print(size, record.robust, seconds[size], record.warnings, flush=True)
    first = next(iter(found.values()))
    agreed = {
        i: run[0]["robust"]
        for i, run in enumerate(zip(*theirs, strict=True))
        if len({point["robust"] for point in run}) == 1
    }
    ours = dict(zip(first.ids.tolist(), first.robust.tolist(), strict=True))
    result = {
        "name": options.name,
        "points": len(y),
        "seed": 0,
        "device": "cpu, 1 thread",
        "torch": torch.__version__,
        "robust": {size: int(points.robust.sum()) for size, points in found.items()},
        "seconds": seconds,
        "verdicts that differ from the first batch size": {
            size: int((points.robust != first.robust).sum()) for size, points in found.items()
        },
        "sizes or breaking attacks that differ": {
            size: int(
                (
                    (points.broken_by != first.broken_by)
                    | ~np.isclose(points.sizes, first.sizes, rtol=0, atol=0, equal_nan=True)
                ).sum()
            )
            for size, points in found.items()
        },
        "agreed by the reference's seeds": len(agreed),
        "of these, verdicts of ours that differ": sum(ours[i] != agreed[i] for i in agreed),
    }
    text = json.dumps(result, indent=1)
    (RESULTS / f"batch-sizes-{options.name}.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
