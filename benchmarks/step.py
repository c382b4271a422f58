"""Times a step of adversarial training beside MAIR's and robust_overfitting's, and its limit.

    python benchmarks/step.py run MAIR ROBUST_OVERFITTING --mode eval --batch 32 --rounds 5
    python benchmarks/step.py table

MAIR and ROBUST_OVERFITTING are checkouts of github.com/Harry24k/MAIR and
github.com/locuslab/robust_overfitting. Their own classes and their own loop run, on our ResNet-18.
Each is a process of its own, started as its users start it, and all take turns: a round times one
step of each. `limit` is what the step's passes cost by themselves, in a process like ours: as many
forwards with a backward to the image as the attack has steps, the weights frozen, and one forward
with a whole backward. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from common import RESULTS, commit, device_name
from step_peers import DECAY, EPS, LR, MOMENTUM, STEP_SIZE, STEPS, Step, mair, robust_overfitting
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from robustkit.engine.device import pick_device
from robustkit.engine.fitting import Fitting
from robustkit.engine.processes import Processes, launch
from robustkit.engine.resolve import Settings, resolve
from robustkit.engine.victim import frozen
from robustkit.interfaces import Batch, Clock, Dataset, Images
from robustkit.records import RunFolder

SHAPE = (3, 32, 32)
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
PEERS = ("MAIR", "robust_overfitting")

RECIPE = {
    "model": {"name": "resnet18"},
    "trainer": {
        "name": "adversarial",
        "attack": {"name": "pgd", "steps": STEPS, "step_size": STEP_SIZE},
    },
    "threat": {"norm": "linf", "eps": "8/255"},
    "optimizer": {"name": "sgd", "lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY},
}
OURS: dict[str, list[tuple[str, Any]]] = {
    "ours": [],
    "ours, channels_last": [("fit.channels_last", True)],
    "ours, compiled": [("fit.compile", True)],
    "ours, bf16": [("fit.precision", "bf16")],
    "ours, bf16, channels_last": [("fit.precision", "bf16"), ("fit.channels_last", True)],
}
APART = list(OURS)[2:]
"""What is shown apart: compilation and less precision."""


class Noise(Dataset):
    """Random images of CIFAR-10's shape: the cost of a step does not depend on what they show."""

    name = "noise"

    def split(self, part: Literal["train", "test"]) -> Images:
        return NoiseImages()


class NoiseImages:
    """256 images in 10 classes."""

    shape, classes = SHAPE, tuple("0123456789")
    labels = torch.arange(256) % 10

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, ids: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(256, (256, *SHAPE), generator=draw, dtype=torch.uint8)
        return images[ids]


def ours(processes: Processes, batch: Batch, mode: str, settings: Settings) -> Step:
    """Give the engine's whole step, optimiser and observers included."""
    settings = [("fit.adversary_mode", mode), ("fit.batch_size", len(batch)), *settings]
    recipe, components = resolve(RECIPE, settings)
    components = replace(components, data=Noise())
    fitting = Fitting(processes, recipe, components, RunFolder(Path(tempfile.mkdtemp())))
    return lambda: fitting.step(batch, Clock(steps=1000))


def attack_pass(model: nn.Module, batch: Batch, mode: str) -> Step:
    """Give a forward and the backward to the image, the weights frozen."""

    def step() -> None:
        with frozen(model, training=mode == "train"):
            x = batch.x.detach().requires_grad_()
            torch.autograd.grad(cross_entropy(model(x), batch.y), x)

    return step


def update_pass(model: nn.Module, batch: Batch) -> Step:
    """Give a forward in training mode and the whole backward."""

    def step() -> None:
        model.train().zero_grad()
        cross_entropy(model(batch.x), batch.y).backward()

    return step


def step_of(name: str, given: argparse.Namespace, processes: Processes | None) -> Step:
    """Build what is timed under a name; the engine's processes are there for all but the peers."""
    device = pick_device(given.device)
    images, ids = NoiseImages(), torch.arange(given.batch)
    x, y = images.take(ids).float() / 255, images.labels[ids]
    batch = Batch(*(tensor.to(device) for tensor in (x, y, ids, torch.zeros_like(ids))))
    if processes and name in OURS:
        return ours(processes, batch, given.mode, OURS[name])
    torch.manual_seed(0)
    model: Any = resolve(RECIPE)[1].model.build(SHAPE, 10, MEAN, STD).to(device)
    match name:
        case "MAIR":
            return mair(given.mair, model, batch, given.mode)
        case "robust_overfitting":
            model.features[0] = nn.Identity()  # their loop normalises
            return robust_overfitting(given.robust_overfitting, model, batch)
        case "attack pass":
            return attack_pass(model, batch, given.mode)
        case _:
            return update_pass(model, batch)


def serve(processes: Processes | None, name: str, given: argparse.Namespace, pipe: Any) -> None:
    """Take a step whenever the pipe asks for one, and send its seconds back."""
    step = step_of(name, given, processes)
    while pipe.recv():
        processor, wall = time.process_time(), time.perf_counter()
        step()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        pipe.send((time.process_time() - processor, time.perf_counter() - wall))


def contestant(name: str, given: argparse.Namespace, pipe: Any) -> None:
    """Be a process of one's own: the peers as they are, the rest as the engine starts them."""
    torch.set_num_threads(given.threads)
    if name in PEERS:
        serve(None, name, given, pipe)
    else:
        precision = dict(OURS.get(name, [])).get("fit.precision", "32")
        launch(serve, (name, given, pipe), processes=1, device=given.device, precision=precision)


def measure(names: Sequence[str], given: argparse.Namespace) -> dict[str, Any]:
    """Time one step of each in turn, `rounds` times after one that does not count."""
    spawn, pipes = multiprocessing.get_context("spawn"), {}
    for name in names:
        pipes[name], end = spawn.Pipe()
        spawn.Process(target=contestant, args=(name, given, end), daemon=True).start()
    seconds: dict[str, Any] = {name: {"processor": [], "wall": []} for name in names}
    for number in range(-1, given.rounds):
        for name, pipe in pipes.items():
            pipe.send(True)
            taken = pipe.recv()
            for clock, value in zip(seconds[name], taken, strict=True) if number >= 0 else ():
                seconds[name][clock].append(round(value, 4))
        print(f"{number + 1} of {given.rounds} rounds", flush=True)
    for pipe in pipes.values():
        pipe.send(False)
    return seconds


def run(given: argparse.Namespace) -> None:
    """Time everything, and write a record."""
    device = pick_device(given.device)
    names = [name for name in OURS if given.apart or name not in APART]
    names += PEERS if given.mode == "train" else PEERS[:1]  # the other knows no eval mode
    record = {
        "schema": 1,
        "mode": given.mode,
        "batch": given.batch,
        "rounds": given.rounds,
        "device": device_name(device, given.threads),
        "torch": torch.__version__,
        "commits": {
            "robustkit": commit(),
            "MAIR": commit(given.mair),
            "robust_overfitting": commit(given.robust_overfitting),
        },
        "seconds": measure([*names, "attack pass", "update pass"], given),
    }
    file = RESULTS / f"step-{device.type}-{given.mode}-{given.batch}.json"
    file.write_text(json.dumps(record, indent=1).replace("\n    ", " ") + "\n", "utf-8")


def table() -> None:
    """Set all records side by side: benchmarks/results/step.md."""
    lines = [
        "# A step of adversarial training",
        "",
        f"PGD-{STEPS} with a random start at linf {EPS * 255:.0f}/255, ResNet-18 (width 64), images"
        " of 3 x 32 x 32, SGD with momentum and weight decay, float32; seconds are medians over"
        " the rounds (smallest to largest), all taking turns, each in its own process. `limit` is"
        f" {STEPS} forwards with a backward to the image, the weights frozen, and one forward with"
        " a whole backward, all by torch's own convolutions, which a processor's Winograd ones"
        " undercut. On a processor shared with others its own seconds are the ones to compare.",
    ]
    for file in sorted(RESULTS.glob("step-*.json")):
        lines += shown(json.loads(file.read_text("utf-8")))
    (RESULTS / "step.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def shown(record: dict[str, Any]) -> list[str]:
    """Show a record; ratios are of medians, of processor time on a CPU and wall time on a GPU."""
    seconds = record["seconds"]
    decisive = "processor" if record["device"].startswith("cpu") else "wall"
    attack, update = seconds.pop("attack pass"), seconds.pop("update pass")
    seconds["limit"] = {
        clock: [STEPS * a + u for a, u in zip(attack[clock], update[clock], strict=True)]
        for clock in attack
    }
    middle = {name: statistics.median(clocks[decisive]) for name, clocks in seconds.items()}
    fastest = min(middle[name] for name in PEERS if name in middle)
    commits = ", ".join(f"{name} {code}" for name, code in record["commits"].items())
    lines = [
        "",
        f"## The attack's model in {record['mode']} mode, batch {record['batch']}",
        "",
        f"{record['device']}; torch {record['torch']}; {record['rounds']} rounds; {commits}.",
        "",
        "| | processor s | wall s | times as fast as the fastest peer | times the limit |",
        "|---" * 5 + "|",
    ]
    for name, clocks in seconds.items():
        spans = [
            f"{statistics.median(clocks[c]):.3f} ({min(clocks[c]):.3f} to {max(clocks[c]):.3f})"
            for c in ("processor", "wall")
        ]
        ratios = [f"{fastest / middle[name]:.2f}", f"{middle[name] / middle['limit']:.2f}"]
        lines.append(f"| {name} | " + " | ".join(spans + ratios) + " |")
    return lines


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    timing = commands.add_parser("run", help="time the steps")
    timing.add_argument("mair", type=Path)
    timing.add_argument("robust_overfitting", type=Path)
    timing.add_argument("--mode", choices=("eval", "train"), default="eval")
    timing.add_argument("--batch", type=int, default=32)
    timing.add_argument("--rounds", type=int, default=5)
    timing.add_argument("--device", default="auto")
    timing.add_argument("--apart", action="store_true", help="less precision and compilation, too")
    timing.add_argument("--threads", type=int, default=1)
    commands.add_parser("table", help="set the results side by side")
    given = parser.parse_args()
    if given.command == "table":
        table()
    else:
        run(given)


if __name__ == "__main__":
    main()
