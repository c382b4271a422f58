"""Compares AutoAttack with the reference's verdicts, point by point, and writes what it found.

    python benchmarks/agreement.py run REFERENCE DATA --name mnist-lenet-at.linf-0.25
    python benchmarks/agreement.py table REFERENCE

REFERENCE holds the models (models.py, NAME.pt) and the verdicts (NAME.NORM-EPS.seedN.json); DATA
holds MNIST/raw/ and the unpacked cifar10-jpg/. Results go to benchmarks/results/; seconds
are those of the processor, on one thread.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, commit, device_name
from torch import Tensor, nn

from robustkit.attacks.autoattack import AutoAttack
from robustkit.engine.device import keep_memory
from robustkit.engine.probe import PROBED
from robustkit.engine.quick import quickened
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim, frozen
from robustkit.interfaces import Attack
from robustkit.threat import ThreatModel, parse_eps, parse_norm

CLASSES = {"mnist-lenet-at": "LeNet", "cifar10-resnet18w16-at": "ResNet18"}


def load_model(reference: Path, name: str) -> nn.Module:
    """Build a reference model and load its weights."""
    spec = importlib.util.spec_from_file_location("reference_models", reference / "models.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: nn.Module = getattr(module, CLASSES[name])()
    model.load_state_dict(torch.load(reference / f"{name}.pt", weights_only=True))
    return model.eval()


def load_points(data: Path, points: Sequence[dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """Read the images that verdicts speak of: x (N, C, H, W) in [0, 1] and y (N,)."""
    y = torch.tensor([point["label"] for point in points])
    if "file" in points[0]:
        from PIL import Image

        files = [data / "cifar10-jpg" / point["file"] for point in points]
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, y
    raw = np.fromfile(data / "MNIST/raw/t10k-images-idx3-ubyte", dtype=np.uint8)[16:]
    images = raw.reshape(-1, 1, 28, 28)[[point["index"] for point in points]]
    return torch.from_numpy(images).float() / 255, y


def verdicts_of(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    seed: int,
    ids: Tensor,
    attack: Attack | None = None,
) -> dict[str, Any]:
    """Run AutoAttack's parts in turn, as the engine does, each on the points still robust."""
    with torch.no_grad():
        logits = model(x)
    robust = clean = logits.argmax(1) == y
    broken_by = [""] * len(x)
    parts: dict[str, dict[str, float]] = {}
    attack = attack or AutoAttack()
    with frozen(model):
        asked = quickened(model, x[:PROBED])
        for part in attack.parts(logits.shape[1], threat):
            left = robust.nonzero().squeeze(1)
            if not len(left):
                break
            victim = CountingVictim(asked, len(left), x.device, drop=True)
            began = time.process_time()
            rng = PointRng(seed, part.name, ids[left])
            x_adv = threat.clamp(part.perturb(victim, x[left], y[left], threat, rng))
            seconds = time.process_time() - began
            if (threat.size(x_adv - x[left]) > threat.eps + threat.tolerance).any():
                raise SystemExit(f"{part.name} left the ball")
            with torch.no_grad():
                broken = model(x_adv).argmax(1) != y[left]
            for row in left[broken].tolist():
                broken_by[row] = part.name
            robust = robust.clone()
            robust[left[broken]] = False
            parts[part.name] = {
                "points": len(left),
                "broken": int(broken.sum()),
                "forwards": int(victim.forwards.sum()),
                "backwards": int(victim.backwards.sum()),
                "seconds": round(seconds, 1),
            }
            print(part.name, parts[part.name], flush=True)
    return {
        "clean": clean.double().mean().item(),
        "robust": robust.double().mean().item(),
        "parts": parts,
        "verdicts": [
            {"index": i, "label": t, "clean_correct": c, "robust": r, "broken_by": b}
            for i, t, c, r, b in zip(
                ids.tolist(), y.tolist(), clean.tolist(), robust.tolist(), broken_by, strict=True
            )
        ],
    }


def reference_runs(reference: Path, name: str) -> list[dict[str, Any]]:
    """Read every seed's verdicts of one model and threat, NAME being MODEL.NORM-EPS."""
    files = sorted(reference.glob(f"{name}.seed*.json"))
    return [json.loads(file.read_text("utf-8")) for file in files]


def our_runs(name: str) -> list[dict[str, Any]]:
    """Read what `run` wrote for every seed of ours."""
    files = sorted(RESULTS.glob(f"agreement-{name}.seed*.json"))
    return [json.loads(file.read_text("utf-8")) for file in files]


def threat_of(name: str) -> ThreatModel:
    """Read the threat from MODEL.NORM-EPS."""
    norm, _, eps = name.partition(".")[2].partition("-")
    return ThreatModel(parse_norm(norm), parse_eps(eps.replace("_", "/")))


def run(reference: Path, data: Path, name: str, seed: int) -> dict[str, Any]:
    """Judge the points of one reference run with one seed of ours, and write the verdicts."""
    torch.set_num_threads(1)
    keep_memory()
    theirs = reference_runs(reference, name)[0]
    model_name, threat = name.split(".")[0], threat_of(name)
    x, y = load_points(data, theirs["points"])
    ids = torch.tensor([point["index"] for point in theirs["points"]])
    began = time.process_time()
    found = verdicts_of(load_model(reference, model_name), x, y, threat, seed, ids)
    seconds = round(time.process_time() - began, 1)
    record = {
        "schema": 1,
        "model": model_name,
        "threat": str(threat),
        "n": len(x),
        "seed": seed,
        "device": device_name(torch.device("cpu"), 1),
        "torch": torch.__version__,
        "commit": commit(),
        "seconds": seconds,
        **found,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1).replace("\n   ", " ").replace("\n  }", " }")
    (RESULTS / f"agreement-{name}.seed{seed}.json").write_text(text + "\n", "utf-8")
    print(f"{name} seed {seed}: robust {found['robust']:.4f} in {seconds} s", flush=True)
    return record


def compare(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say where our verdicts differ from those on which all reference seeds agree."""
    their_robust = np.array([[p["robust"] for p in run["points"]] for run in theirs])
    our_robust = np.array([[p["robust"] for p in run["verdicts"]] for run in ours])
    agreed = (their_robust == their_robust[0]).all(0)
    index = np.array([point["index"] for point in theirs[0]["points"]])
    differ = (our_robust != their_robust[0]) & agreed
    return {
        "agreed": int(agreed.sum()),
        "differ": differ.sum(1).tolist(),
        "they_break_we_never": index[~their_robust.any(0) & our_robust.all(0)].tolist(),
        "we_break_they_never": index[their_robust.all(0) & ~our_robust.any(0)].tolist(),
        "ours": [round(100 * run["robust"], 2) for run in ours],
        "theirs": [round(100 * run["robust"], 2) for run in theirs],
    }


def table(reference: Path) -> None:
    """Set all our runs beside the reference's: benchmarks/results/agreement.md."""
    files = RESULTS.glob("agreement-*.seed*.json")
    names = sorted({f.name.removeprefix("agreement-").rsplit(".seed", 1)[0] for f in files})
    lines = [
        "# Agreement with the reference's standard AutoAttack",
        "",
        "`differ` counts, by seed of ours, the points where our verdict differs from the one on "
        "which all reference seeds agree. Points are given by their index.",
        "",
        "| model, threat | points | agreed | differ | robust %: ours | reference "
        "| they always break, we never | we always break, they never "
        "| CPU seconds: ours | reference | forward, backward passes a point | device, torch "
        "| commit |",
        "|---" * 13 + "|",
    ]
    for name in names:
        ours, theirs = our_runs(name), reference_runs(reference, name)
        found = compare(ours, theirs)
        passes = [
            f"{sum(p[kind] for p in ours[0]['parts'].values()) / ours[0]['n']:.0f}"
            for kind in ("forwards", "backwards")
        ]
        cells = [
            f"{ours[0]['model']}, {ours[0]['threat']}",
            str(ours[0]["n"]),
            str(found["agreed"]),
            " / ".join(map(str, found["differ"])),
            " / ".join(f"{robust:.1f}" for robust in found["ours"]),
            " / ".join(f"{robust:.1f}" for robust in found["theirs"]),
            ", ".join(map(str, found["they_break_we_never"])) or "none",
            ", ".join(map(str, found["we_break_they_never"])) or "none",
            " / ".join(f"{run['seconds']:.0f}" for run in ours),
            " / ".join(f"{run['seconds_1_thread']:.0f}" for run in theirs),
            ", ".join(passes),
            f"{ours[0]['device']}, {ours[0]['torch']}",
            " / ".join(run["commit"] for run in ours),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += contested_table()
    (RESULTS / "agreement.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def contested_table() -> list[str]:
    """Show what contested.py wrote: how often each side leaves a contested point robust."""
    lines = [
        "",
        "## Points on which seeds disagree",
        "",
        "The share of seeds with which apgd-ce and apgd-t leave the point robust (fab-t and square "
        "broke none of them), and how many of these points a seed leaves robust: what a single run "
        "differs by from the next.",
    ]
    for file in sorted(RESULTS.glob("contested-*.json")):
        record = json.loads(file.read_text("utf-8"))
        ours, theirs = record["robust"]["ours"], record["robust"]["reference"]
        first, last = record["seeds"]
        lines += [
            "",
            f"{record['name']}, {last - first + 1} seeds each; commit {record['commit']}",
            "",
            "| point | " + " | ".join(ours["share"]) + " | robust points |",
            "|---" * (len(ours["share"]) + 2) + "|",
        ]
        for side, found in (("ours", ours), ("reference", theirs)):
            shares = " | ".join(f"{share:.2f}" for share in found["share"].values())
            lines.append(f"| {side} | {shares} | {found['points']} ± {found['deviation']} |")
    return lines


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    judge = commands.add_parser("run", help="judge the points of a reference run")
    judge.add_argument("reference", type=Path)
    judge.add_argument("data", type=Path)
    judge.add_argument("--name", default="mnist-lenet-at.linf-0.25", help="MODEL.NORM-EPS")
    judge.add_argument("--seed", type=int, action="append", help="may be given several times")
    show = commands.add_parser("table", help="set the results side by side")
    show.add_argument("reference", type=Path)
    given = parser.parse_args()
    if given.command == "table":
        table(given.reference)
    else:
        for seed in given.seed or [0]:
            run(given.reference, given.data, given.name, seed)


if __name__ == "__main__":
    main()
