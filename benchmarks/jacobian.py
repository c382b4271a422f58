"""Times the slopes that adv-alpha needs: all rivals in one batched call, and one by one.

    python benchmarks/jacobian.py --rounds 7

A slope for each class but one, at 128 random images: `batched` is what the attack does, `separate`
goes backward once a class from the same forward, `repeated` passes each image once a class and goes
backward once. `pass` is a forward and a backward. All take turns in one process, one thread;
seconds are medians. Results go to benchmarks/results/jacobian.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from common import RESULTS, commit
from robustkit_plugins.learning_with_adversary.attacks import _slopes
from robustkit_plugins.learning_with_adversary.softmax import log_odds_weights, rival_weights
from torch import Tensor, nn

from robustkit.catalog import build
from robustkit.engine.device import keep_memory, pick_device
from robustkit.engine.provenance import device_name
from robustkit.engine.victim import frozen

MODELS = {
    "mlp (784-1000-1000)": ({"name": "mlp"}, (1, 28, 28), 10),
    "lenet5": ({"name": "lenet5"}, (1, 28, 28), 10),
    "resnet18, width 16": ({"name": "resnet18", "width": 16}, (3, 32, 32), 10),
}
Ways = dict[str, Callable[[], Tensor]]


def ways(model: nn.Module, x: Tensor, y: Tensor, classes: int) -> Ways:
    """Give what is timed; all but `pass` give the same slopes (classes - 1, N, C, H, W)."""
    others = torch.arange(classes, device=x.device).expand(len(x), classes)
    rivals = others[others != y.unsqueeze(1)].view(len(x), -1)

    def look(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.detach().requires_grad_()
        return model(x), x

    def batched() -> Tensor:
        logits, x_ = look(x)
        return _slopes(logits, x_, rival_weights(logits.detach(), y, rivals)[0])

    def separate() -> Tensor:
        logits, x_ = look(x)
        weights = rival_weights(logits.detach(), y, rivals)[0].to(logits)
        pulled = (torch.autograd.grad(logits, x_, w, retain_graph=True)[0] for w in weights)
        return torch.stack(list(pulled))

    def repeated() -> Tensor:
        logits, x_ = look(x.repeat(classes - 1, 1, 1, 1))
        weights = rival_weights(logits.detach()[: len(x)], y, rivals)[0].to(logits)
        slopes = torch.autograd.grad(logits, x_, weights.flatten(0, 1))[0]
        return slopes.view(classes - 1, *x.shape)

    def one_pass() -> Tensor:
        logits, x_ = look(x)
        return _slopes(logits, x_, log_odds_weights(logits.detach(), y).unsqueeze(0))

    return {"batched": batched, "separate": separate, "repeated": repeated, "pass": one_pass}


def clock() -> float:
    """Give seconds: of a processor its own, for others may share it."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(timed: Ways, rounds: int) -> dict[str, list[float]]:
    """Time each way once a round, in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    slopes = [timed[name]() for name in ("batched", "separate", "repeated")]
    for other in slopes[1:]:
        scale = float(slopes[0].abs().max())
        if not torch.allclose(slopes[0], other, atol=1e-4 * scale):
            raise SystemExit("the ways disagree")
    for _ in range(rounds):
        for name, work in timed.items():
            began = clock()
            work()
            seconds[name].append(clock() - began)
    return seconds


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    device = pick_device(options.device)
    head = (
        "batched s",
        "separate s",
        "repeated s",
        "pass s",
        "separate / batched",
        "batched / pass",
    )
    lines = [
        "# The slopes of adv-alpha, for all rivals",
        "",
        f"{options.batch} random images, fresh weights, seed 0; seconds are medians of"
        f" {options.rounds} rounds, taking turns; on a processor its own seconds."
        f" {device_name(device)}, 1 thread; torch {torch.__version__}, robustkit {commit()}.",
        "",
        f"| | {' | '.join(head)} |",
        "|" + "---|" * (1 + len(head)),
    ]
    for name, (table, shape, classes) in MODELS.items():
        torch.manual_seed(0)
        mean, std = [0.5] * shape[0], [0.25] * shape[0]
        model = build("model", table).build(shape, classes, mean, std).eval().to(device)
        x = torch.rand(options.batch, *shape, device=device)
        with frozen(model), torch.no_grad():
            y = model(x).argmax(1)
        with frozen(model):
            found = measure(ways(model, x, y, classes), options.rounds)
        middle = {way: statistics.median(values) for way, values in found.items()}
        lines.append(
            f"| {name} | "
            + " | ".join(
                f"{middle[way]:.4f}" for way in ("batched", "separate", "repeated", "pass")
            )
            + f" | {middle['separate'] / middle['batched']:.2f}"
            + f" | {middle['batched'] / middle['pass']:.2f} |"
        )
        print(lines[-1], flush=True)
    (RESULTS / "jacobian.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
