"""Asks how often ours and the reference break the points on which single seeds disagree.

    python benchmarks/contested.py REFERENCE DATA IMPLEMENTATION --name mnist-lenet-at.linf-0.25

REFERENCE and DATA as for agreement.py, whose results it reads; IMPLEMENTATION is a checkout of
fra31/auto-attack. Runs apgd-ce and apgd-t of both with many seeds on the points that some run
breaks and some run does not: the difference of two seeds is chance, that of two shares is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agreement import load_model, load_points, our_runs, reference_runs, threat_of
from common import RESULTS, commit
from torch import Tensor, nn

from robustkit.attacks.apgd import APGDCE, APGDTargeted
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim, frozen
from robustkit.threat import ThreatModel

Run = Callable[[int], Tensor]
"""A seed to the points that stay robust (N,)."""


def contested(name: str, reference: Path) -> list[dict[str, Any]]:
    """Give the points that some run of ours or of the reference breaks, and some does not."""
    theirs = reference_runs(reference, name)
    runs = [run["points"] for run in theirs] + [run["verdicts"] for run in our_runs(name)]
    robust = np.array([[point["robust"] for point in run] for run in runs])
    return [theirs[0]["points"][i] for i in np.flatnonzero(robust.any(0) & ~robust.all(0))]


def ours(
    model: nn.Module, x: Tensor, y: Tensor, ids: Tensor, threat: ThreatModel, seed: int
) -> Tensor:
    """Run our apgd-ce, then our apgd-t on what is left."""
    robust = model(x).argmax(1) == y
    with frozen(model):
        for part in (APGDCE(), APGDTargeted()):
            left = robust.nonzero().squeeze(1)
            if len(left):
                victim = CountingVictim(model, len(left), x.device, drop=True)
                rng = PointRng(seed, part.name, ids[left])
                x_adv = part.perturb(victim, x[left], y[left], threat, rng)
                robust[left] = model(x_adv).argmax(1) == y[left]
    return robust


def theirs(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, seed: int) -> Tensor:
    """Run the reference's apgd-ce and apgd-t with the settings of its standard version."""
    from autoattack import AutoAttack  # type: ignore[import-not-found]

    attack = AutoAttack(
        model,
        norm=threat.norm.capitalize(),
        eps=threat.eps,
        seed=seed,
        version="custom",
        attacks_to_run=["apgd-ce", "apgd-t"],
        device="cpu",
        verbose=False,
    )
    attack.apgd.n_restarts = attack.apgd_targeted.n_restarts = 1
    attack.apgd_targeted.n_target_classes = 9
    x_adv = attack.run_standard_evaluation(x, y, bs=len(x))
    return model(x_adv).argmax(1) == y


def main() -> None:
    """Read the command line, run both, and write the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("implementation", type=Path)
    parser.add_argument("--name", default="mnist-lenet-at.linf-0.25", help="MODEL.NORM-EPS")
    parser.add_argument("--seeds", type=int, default=30)
    given = parser.parse_args()
    sys.path.insert(0, str(given.implementation))
    torch.set_num_threads(1)
    points = contested(given.name, given.reference)
    x, y = load_points(given.data, points)
    ids = torch.tensor([point["index"] for point in points])
    model, threat = load_model(given.reference, given.name.split(".")[0]), threat_of(given.name)
    sides: dict[str, Run] = {
        "ours": partial(ours, model, x, y, ids, threat),
        "reference": partial(theirs, model, x, y, threat),
    }
    seeds = range(100, 100 + given.seeds)
    found = {side: np.array([run(seed).tolist() for seed in seeds]) for side, run in sides.items()}
    record = {
        "schema": 1,
        "name": given.name,
        "seeds": [seeds.start, seeds.stop - 1],
        "torch": torch.__version__,
        "commit": commit(),
        "robust": {
            side: {
                "points": round(robust.sum(1).mean(), 2),
                "deviation": round(robust.sum(1).std(ddof=1), 2),
                "share": dict(zip(ids.tolist(), robust.mean(0).round(3).tolist(), strict=True)),
            }
            for side, robust in found.items()
        },
    }
    text = json.dumps(record, indent=1)
    (RESULTS / f"contested-{given.name}.json").write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
