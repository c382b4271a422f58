"""Times attacks beside those of peers: the same model, points and threads, taking turns.

    python benchmarks/attacks.py run REFERENCE DATA --attack autoattack --points 64
        --peer reference=CHECKOUT --peer torchattacks=CHECKOUT --peer art= --rounds 3
    python benchmarks/attacks.py table

REFERENCE and DATA as for agreement.py; a peer's CHECKOUT goes before the installed packages (and
`:`-separated folders of what it needs). Each run is a process of its own, and they take turns.
Every peer's images are judged alike: a fresh pass over points that are right when clean. A
contender may be given as NAME@THREADS; ours as ours@2 has two processes of one thread each.

A run's limit is what its own passes cost in batches of 128: forward passes as such, and those that
went backward as measured with their backward. Each attacks two points before it is timed, so that
imports don't count, nor those of the server of our processes, which `robustkit eval` starts while
it imports torch itself; memory is the first process's peak above what it held then. The processor
time of several processes of ours is not known. Results go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from agreement import load_model, load_points, reference_runs, threat_of
from attacks_peers import PEERS, STEPS
from common import RESULTS, commit, device_name
from torch import Tensor, nn

ATTACKS = ("autoattack", "apgd-ce", "pgd")
BATCH = 128


class Counted(nn.Module):
    """A model that counts the rows that go through it, forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.forwards += len(x)
        if logits.requires_grad:
            logits.register_hook(self._back)
        return logits

    def _back(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def seconds_a_row(model: nn.Module, x: Tensor) -> tuple[float, float]:
    """Measure a row's pass forward, and its pass forward and backward, in processor seconds."""
    x = x.repeat(-(-BATCH // len(x)), 1, 1, 1)[:BATCH]

    def both() -> None:
        with torch.enable_grad():
            asked = x.detach().requires_grad_()
            torch.autograd.grad(model(asked).sum(), asked)

    def ahead() -> None:
        with torch.no_grad():
            model(x)

    costs = []
    for call in (ahead, both):
        times = []
        for _ in range(11):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
        costs.append(statistics.median(times) / BATCH)
    return costs[0], costs[1]


def memory(field: str) -> float:
    """Give this process's memory in MiB: what it holds now (VmRSS), or its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text("utf-8")
    held = next(line for line in status.splitlines() if line.startswith(field))
    return int(held.split()[1]) / 1024


def ours(
    attack: str,
    processes: int,
    rebuild: Callable[[], nn.Module],
    x: Tensor,
    y: Tensor,
    eps: float,
) -> dict[str, Any]:
    """Run the whole engine, verdicts and files included."""
    from robustkit.catalog import build
    from robustkit.data.images import ArrayImages
    from robustkit.engine.evaluate import evaluate
    from robustkit.engine.identity import hash_module
    from robustkit.records import RunFolder
    from robustkit.threat import ThreatModel

    options = {"steps": STEPS["pgd"]} if attack == "pgd" else {}
    folder, model = RunFolder(Path(tempfile.mkdtemp())), rebuild()
    images = ArrayImages((x * 255).round().byte().numpy(), y.numpy(), [str(k) for k in range(10)])
    (record,) = evaluate(
        model,
        images,
        [build("attack", {"name": attack, **options})],
        [ThreatModel("linf", eps)],
        folder=folder,
        model_name="",
        model_hash=hash_module(model),
        data={},
        ids=range(len(x)),
        batch_size=len(x),
        processes=processes,
        rebuild=rebuild,
        device="cpu",
    )
    ((_, points),) = folder.results()
    return {
        "robust": points.robust.tolist(),
        "forwards": sum(part.forwards for part in record.parts),
        "backwards": sum(part.backwards for part in record.parts),
    }


def theirs(
    contender: str, attack: str, model: nn.Module, x: Tensor, y: Tensor, eps: float
) -> dict[str, Any]:
    """Run a peer's attack on all points, and judge its images."""
    counted = Counted(model)
    x_adv = PEERS[contender][0](attack)(counted, x, y, eps).detach()
    with torch.no_grad():
        held = (model(x).argmax(1) == y) & (model(x_adv).argmax(1) == y)
    if float((x_adv - x).abs().max()) > eps + 1e-5:
        raise SystemExit(f"{contender} left the ball")
    return {
        "robust": held.tolist(),
        "forwards": counted.forwards,
        "backwards": counted.backwards,
    }


def one(options: argparse.Namespace) -> dict[str, Any]:
    """Run one contender once, in this process."""
    name, _, threads = options.one.partition("@")
    own = name == "ours"
    torch.set_num_threads(1 if own else int(threads or 1))
    rebuild = partial(load_model, options.reference, options.name.split(".")[0])
    model = rebuild()
    points = reference_runs(options.reference, options.name)[0]["points"][: options.points]
    x, y = load_points(options.data, points)
    eps = threat_of(options.name).eps

    def attack(attack: str, x: Tensor, y: Tensor, processes: int) -> dict[str, Any]:
        # Peers print as they go.
        with contextlib.redirect_stdout(sys.stderr):
            if own:
                return ours(attack, processes, rebuild, x, y, eps)
            return theirs(name, attack, model, x, y, eps)

    count = int(threads or 1)
    attack("pgd" if "pgd" in PEERS.get(name, PEERS["art"])[1] else "apgd-ce", x[:2], y[:2], count)
    held = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    began = time.perf_counter()
    result = attack(options.attack, x, y, count)
    result["wall"] = time.perf_counter() - began
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    result["cpu"] = sum(
        b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime
        for a, b in zip(before, after, strict=True)
    )
    if own and threads:
        # What workers spend is counted by the server that started them, which is asked by nobody.
        result["cpu"] = math.nan
    result["memory"] = round(memory("VmHWM") - held, 1)
    asked = model
    if own:
        from robustkit.engine.quick import quickened

        for parameter in model.parameters():
            parameter.requires_grad_(False)
        asked = quickened(model, x[:64])
    costs = seconds_a_row(asked, x)
    forwards, backwards = result["forwards"], result["backwards"]
    result["limit"] = (forwards - backwards) * costs[0] + backwards * costs[1]
    result["us_a_row"] = [round(1e6 * cost, 1) for cost in costs]
    return result


def spawn(options: argparse.Namespace, contender: str, path: str) -> dict[str, Any]:
    """Run one contender once, in a process of its own."""
    given = [options.reference, options.data, "--name", options.name, "--attack", options.attack]
    command = [sys.executable, "-W", "ignore", __file__, "run", *map(str, given)]
    command += ["--points", str(options.points), "--one", contender]
    threads = contender.partition("@")[2] or "1"
    paths = os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{contender} failed:\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(options: argparse.Namespace) -> None:
    """Let all contenders take turns, and write what was found."""
    named = dict(peer.partition("=")[::2] for peer in options.peer)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in [*options.ours, *named]}
    for turn in range(options.rounds):
        for contender in found:
            result = spawn(options, contender, named.get(contender, ""))
            found[contender].append(result)
            told = {key: value for key, value in result.items() if key != "robust"}
            print(turn, contender, sum(result["robust"]), json.dumps(told), flush=True)
    checkouts = [(peer, path) for peer, path in named.items() if path]
    result = {
        "name": options.name,
        "attack": options.attack,
        "points": options.points,
        "rounds": options.rounds,
        "device": device_name(torch.device("cpu"), 1),
        "torch": torch.__version__,
        "art": importlib.metadata.version("adversarial-robustness-toolbox"),
        "commit": commit(),
        "peers": {peer: commit(Path(path.split(os.pathsep)[0])) for peer, path in checkouts},
        "contenders": {name: summary(runs, found[options.ours[0]]) for name, runs in found.items()},
    }
    text = json.dumps(result, indent=1)
    (RESULTS / f"attacks-{options.attack}-{options.name}.json").write_text(text + "\n")


def summary(runs: list[dict[str, Any]], mine: list[dict[str, Any]]) -> dict[str, Any]:
    """Put a contender's runs together: medians, and in how many verdicts it differs from ours."""

    def median(key: Callable[[dict[str, Any]], float]) -> float:
        return round(statistics.median(map(key, runs)), 3)

    pairs = list(zip(mine, runs, strict=True))
    return {
        "robust": sum(runs[0]["robust"]),
        "differ": sum(a != b for a, b in zip(mine[0]["robust"], runs[0]["robust"], strict=True)),
        "cpu": median(lambda r: r["cpu"]),
        "wall": median(lambda r: r["wall"]),
        "all wall": [round(r["wall"], 2) for r in runs],
        "cpu over ours": round(statistics.median(r["cpu"] / m["cpu"] for m, r in pairs), 2),
        "wall over ours": round(statistics.median(r["wall"] / m["wall"] for m, r in pairs), 2),
        "over its limit": median(lambda r: r["cpu"] / r["limit"]),
        "us a row": [round(statistics.median(r["us_a_row"][i] for r in runs), 1) for i in (0, 1)],
        "forwards": runs[0]["forwards"],
        "backwards": runs[0]["backwards"],
        "MiB": int(median(lambda r: r["memory"])),
    }


def table() -> str:
    """Write a table of every result."""
    lines = [
        "# Attacks beside those of peers",
        "",
        "`python benchmarks/attacks.py run`; linf, medians of rounds that take turns, each run a"
        " process of its own, on a processor. `times ours` is the contender's seconds over those of"
        " our first row, round by round. `over its limit` is processor time over what its own"
        " passes cost in batches of 128. Memory is the peak of the first process above what it held"
        " after an attack on two points, which is not timed. `differ` counts verdicts that are not"
        " ours. [Why ours is not faster yet](attacks-why.md).",
    ]
    for file in sorted(RESULTS.glob("attacks-*.json")):
        found = json.loads(file.read_text("utf-8"))
        lines += [
            "",
            f"## {found['attack']}, {found['name']}, {found['points']} points",
            "",
            f"{found['rounds']} rounds; {found['device']}, torch {found['torch']}, ART"
            f" {found['art']}; commit {found['commit']}; peers'"
            f" {', '.join(f'{name} {at}' for name, at in found['peers'].items())}.",
            "",
            "| | robust | differ | wall s | times ours | CPU s | times ours | over its limit"
            " | forward, both: µs a row | forward, backward passes a point | MiB |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        for name, row in found["contenders"].items():
            passes = (round(row[kind] / found["points"]) for kind in ("forwards", "backwards"))
            figures = (row["cpu"], row["cpu over ours"], row["over its limit"])
            told = (f"{figure:.2f}" if math.isfinite(figure) else "" for figure in figures)
            lines.append(
                f"| {name} | {row['robust']} | {row['differ']} | {row['wall']:.1f}"
                f" | {row['wall over ours']} | {' | '.join(told)}"
                f" | {row['us a row'][0]}, {row['us a row'][1]}"
                f" | {', '.join(map(str, passes))} | {row['MiB']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("reference", type=Path)
    runs.add_argument("data", type=Path)
    runs.add_argument("--name", default="mnist-lenet-at.linf-0.25")
    runs.add_argument("--attack", choices=ATTACKS, default="autoattack")
    runs.add_argument("--points", type=int, default=64)
    runs.add_argument("--rounds", type=int, default=3)
    runs.add_argument("--ours", nargs="+", default=["ours"])
    runs.add_argument("--peer", action="append", default=[])
    runs.add_argument("--one", help=argparse.SUPPRESS)
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "table":
        (RESULTS / "attacks.md").write_text(table())
    elif options.one:
        print(json.dumps(one(options)))
    else:
        run(options)


if __name__ == "__main__":
    main()
