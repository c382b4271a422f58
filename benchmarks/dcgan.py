"""Times a step of DCGAN beside the plain PyTorch loop that everyone starts from.

    python benchmarks/dcgan.py run --batch 128 --rounds 20
    python benchmarks/dcgan.py table

Both train the same two networks, 3 x 64 x 64 images, width 64, codes of 100 numbers, each with an
Adam of its own. `plain` is the loop of PyTorch's DCGAN tutorial, written out below: real and made
images go backward one after the other, the generator's backward also computes the discriminator's
gradients, and five numbers are read off for the log. `ours` is the engine's whole step of the
generator `dcgan`. Each is a process of its own; they take turns, a step a round. Results go to
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from common import RESULTS, commit, device_name
from torch import Tensor, nn, optim

from robustkit.engine.device import pick_device
from robustkit.engine.processes import Processes, launch
from robustkit.engine.resolve import resolve
from robustkit.engine.synthesise import Synthesis
from robustkit.interfaces import Batch, Clock, Dataset, Images
from robustkit.records import RunFolder

SHAPE, CODE, WIDTH = (3, 64, 64), 100, 64
LR, BETAS = 2e-4, (0.5, 0.999)
RECIPE = {
    "generator": {"name": "dcgan", "code": CODE, "width": WIDTH},
    "optimizer": {"name": "adam", "lr": LR, "beta1": BETAS[0], "beta2": BETAS[1]},
}
NAMES = ("ours", "plain")


class Noise(Dataset):
    """Random images: the cost of a step does not depend on what they show."""

    name = "noise"

    def split(self, part: Literal["train", "test"]) -> Images:
        return NoiseImages()


class NoiseImages:
    """320 images of one class."""

    shape, classes = SHAPE, ("noise",)
    labels = torch.zeros(320, dtype=torch.long)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, ids: Tensor) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        images = torch.randint(256, (320, *SHAPE), generator=draw, dtype=torch.uint8)
        return images[ids]


def ours(processes: Processes, batch: Batch) -> Callable[[], object]:
    """Give the engine's whole step."""
    recipe, components = resolve(RECIPE, [("fit.batch_size", len(batch)), ("fit.heldout", 32)])
    components = replace(components, data=Noise())
    work = Synthesis(processes, recipe, components, RunFolder(Path(tempfile.mkdtemp())))
    return lambda: work.step(batch, Clock(steps=1000))


def plain(batch: Batch) -> Callable[[], object]:
    """Give the tutorial's step, on our networks."""
    parts: Any = resolve(RECIPE)[1].generator.build(SHAPE, 1).to(batch.x.device)  # type: ignore[union-attr]
    made_by, judge = parts["generator"].train(), parts["discriminator"].train()
    of_judge = optim.Adam(judge.parameters(), LR, BETAS)
    of_maker = optim.Adam(made_by.parameters(), LR, BETAS)
    criterion, n, device = nn.BCEWithLogitsLoss(), len(batch), batch.x.device

    def step() -> None:
        judge.zero_grad()
        label = torch.full((n,), 1.0, device=device)
        output = judge(batch.x).view(-1)
        loss_real = criterion(output, label)
        loss_real.backward()
        log = [output.mean().item()]
        fake = made_by(torch.randn(n, CODE, device=device))
        label.fill_(0.0)
        output = judge(fake.detach()).view(-1)
        loss_fake = criterion(output, label)
        loss_fake.backward()
        log += [output.mean().item(), (loss_real + loss_fake).item()]
        of_judge.step()

        made_by.zero_grad()
        label.fill_(1.0)
        output = judge(fake).view(-1)
        loss = criterion(output, label)
        loss.backward()
        log += [output.mean().item(), loss.item()]
        of_maker.step()

    return step


def serve(processes: Processes | None, given: argparse.Namespace, pipe: Any) -> None:
    """Take a step whenever the pipe asks for one, and send its seconds back."""
    device, ids = pick_device(given.device), torch.arange(given.batch)
    tensors = (NoiseImages().take(ids).float() / 255, torch.zeros_like(ids), ids, ids * 0)
    batch = Batch(*(tensor.to(device) for tensor in tensors))
    torch.manual_seed(0)
    step = ours(processes, batch) if processes else plain(batch)
    while pipe.recv():
        processor, wall = time.process_time(), time.perf_counter()
        for _ in range(given.steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken = (time.process_time() - processor, time.perf_counter() - wall)
        pipe.send([seconds / given.steps for seconds in taken])


def contestant(name: str, given: argparse.Namespace, pipe: Any) -> None:
    """Be a process of one's own: ours as the engine starts it, the other as it is."""
    torch.set_num_threads(given.threads)
    if name == "plain":
        serve(None, given, pipe)
    else:
        launch(serve, (given, pipe), processes=1, device=given.device, precision="32",
               deterministic=False)  # fmt: skip


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Time both in turn, `rounds` times after one that does not count."""
    spawn, pipes = multiprocessing.get_context("spawn"), {}
    for name in NAMES:
        pipes[name], end = spawn.Pipe()
        spawn.Process(target=contestant, args=(name, given, end), daemon=True).start()
    seconds: dict[str, Any] = {name: {"processor": [], "wall": []} for name in NAMES}
    for number in range(-1, given.rounds):
        # Whoever comes second finds the machine as the first one left it.
        for name in NAMES if number % 2 else NAMES[::-1]:
            pipes[name].send(True)
            taken = pipes[name].recv()
            for clock, value in zip(seconds[name], taken, strict=True) if number >= 0 else ():
                seconds[name][clock].append(round(value, 5))
    for pipe in pipes.values():
        pipe.send(False)
    return seconds


def run(given: argparse.Namespace) -> None:
    """Time both, and write a record."""
    device = pick_device(given.device)
    record = {
        "schema": 1,
        "batch": given.batch,
        "rounds": given.rounds,
        "steps": given.steps,
        "device": device_name(device, given.threads),
        "torch": torch.__version__,
        "commit": commit(),
        "seconds": measure(given),
    }
    file = RESULTS / f"dcgan-{device.type}-{given.batch}.json"
    file.write_text(json.dumps(record, indent=1).replace("\n    ", " ") + "\n", "utf-8")
    table()


def table() -> None:
    """Set all records side by side: benchmarks/results/dcgan.md."""
    lines = [
        "# A step of DCGAN",
        "",
        "Images of 3 x 64 x 64, width 64, codes of 100, float32; seconds a step are medians over"
        " the rounds (smallest to largest), both taking turns, each in its own process. `plain` is"
        " the loop of PyTorch's tutorial on the same networks. On a processor shared with others"
        " its own seconds are the ones to compare.",
        "",
        "| device | batch | rounds | | processor s | wall s | times as fast as plain |",
        "|---" * 7 + "|",
    ]
    for file in sorted(RESULTS.glob("dcgan-*.json")):
        record = json.loads(file.read_text("utf-8"))
        seconds = record["seconds"]
        decisive = "processor" if record["device"].startswith("cpu") else "wall"
        middle = {name: statistics.median(seconds[name][decisive]) for name in NAMES}
        for name in NAMES:
            spans = [
                f"{statistics.median(v):.4g} ({min(v):.4g} to {max(v):.4g})"
                for v in seconds[name].values()
            ]
            lines.append(
                f"| {record['device']}, torch {record['torch']}, {record['commit']} |"
                f" {record['batch']} | {record['rounds']} | {name} | {' | '.join(spans)} |"
                f" {middle['plain'] / middle[name]:.2f} |"
            )
    (RESULTS / "dcgan.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=1, help="steps a round")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    table() if given.what == "table" else run(given)


if __name__ == "__main__":
    main()
