"""Compares attacks that look for the smallest perturbation, on a reference model's points.

    python benchmarks/smallest.py REFERENCE DATA --name mnist-lenet-at --peer CHECKOUT

REFERENCE and DATA are those of agreement.py; CHECKOUT is one of adversarial-library, whose ddn, fmn
and deepfool are run on the same points. Sizes are of the points that are right when clean, in
batches of 100; a point counts as broken where a fresh pass of the model says so. Seconds are those
of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from agreement import load_model, load_points
from torch import Tensor, nn

from robustkit.catalog import build
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim, frozen
from robustkit.threat import ThreatModel, parse_norm

NORMS = ("linf", "l2", "l1")
OURS = ("deepfool", "ddn", "fmn", "fab-t")


def ours(model: nn.Module, x: Tensor, y: Tensor, norm: str) -> Iterator[tuple[str, Any]]:
    """Give each of our attacks in a norm, ready to run."""
    for name in OURS:
        attack = build("attack", name)
        if norm in attack.norms:
            threat, rng = (
                ThreatModel(parse_norm(norm), math.inf),
                PointRng(0, name, torch.arange(len(x))),
            )
            yield name, lambda victim, a=attack, t=threat, r=rng: a.perturb(victim, x, y, t, r)


def theirs(x: Tensor, y: Tensor, norm: str) -> Iterator[tuple[str, Any]]:
    """Give adversarial-library's attacks in a norm, at as many steps as ours."""
    from adv_lib.attacks import ddn, df, fmn

    power = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    if norm != "l1":
        yield (
            "deepfool (adversarial-library)",
            partial(df, inputs=x, labels=y, norm=power, steps=50),
        )
    if norm == "l2":
        yield "ddn (adversarial-library)", partial(ddn, inputs=x, labels=y, steps=100, levels=None)
    yield "fmn (adversarial-library)", partial(fmn, inputs=x, labels=y, norm=power, steps=100)


def measure(
    model: nn.Module, run: Callable[[Any], Tensor], x: Tensor, y: Tensor, norm: str
) -> dict[str, float]:
    """Run an attack once, and say what it found and what it took."""
    victim, began = CountingVictim(model, len(x), x.device, drop=False), time.process_time()
    x_adv = run(victim).detach().clamp(0, 1)
    seconds = time.process_time() - began
    with torch.no_grad():
        broken = model(x_adv).argmax(1) != y
    size = ThreatModel(parse_norm(norm), math.inf).size((x_adv - x).double())
    size = size.where(broken, torch.inf).sort().values
    return {
        "median": size[(len(size) - 1) // 2].item(),
        "mean": size[size.isfinite()].mean().item(),
        "unbroken": int((~broken).sum()),
        "forwards": victim.forwards.mean().item(),
        "backwards": victim.backwards.mean().item(),
        "seconds": seconds,
    }


class Module(nn.Module):
    """A victim as a peer calls it."""

    def __init__(self, victim: CountingVictim) -> None:
        super().__init__()
        self.victim = victim

    def forward(self, x: Tensor) -> Tensor:
        return self.victim(x)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("reference", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--name", default="mnist-lenet-at")
    parser.add_argument("--points", default="mnist-lenet-at.linf-0.25.seed0.json")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--norms", default=",".join(NORMS))
    parser.add_argument("--peer", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads((given.reference / given.points).read_text())["points"][: given.limit]
    model = load_model(given.reference, given.name)
    x, y = load_points(given.data, rows)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    print(f"{given.name}, {len(x)} points that are right of {len(right)}, seed 0, one thread")
    print("| norm | attack | median | mean | unbroken | forwards | backwards | seconds |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    if given.peer:
        sys.path.insert(0, str(given.peer))
    with frozen(model):
        for norm in given.norms.split(","):
            found = list(ours(model, x, y, norm))
            if given.peer:
                found += [
                    (name, lambda v, run=run: run(Module(v))) for name, run in theirs(x, y, norm)
                ]
            for name, run in found:
                m = measure(model, run, x, y, norm)
                print(
                    f"| {norm} | {name} | {m['median']:.4g} | {m['mean']:.4g} | {m['unbroken']} |"
                    f" {m['forwards']:.0f} | {m['backwards']:.0f} | {m['seconds']:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
