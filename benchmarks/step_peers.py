"""The steps of MAIR and robust_overfitting, as their checkouts have them, for step.py."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustkit.interfaces import Batch

EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10
LR, MOMENTUM, DECAY = 0.1, 0.9, 5e-4

Step = Callable[[], object]


def mair(checkout: Path, model: nn.Module, batch: Batch, mode: str) -> Step:
    """Give one iteration of MAIR's `AT.fit`; its attack runs in eval mode unless it is told."""
    sys.path.insert(0, str(checkout))
    from mair import AT, RobModel  # type: ignore[import-not-found]

    trainer = AT(RobModel(model, n_classes=10), eps=EPS, alpha=STEP_SIZE, steps=STEPS)
    if mode == "train":
        trainer.atk.set_model_training_mode(True, True, True)
    trainer.setup(optimizer=f"SGD(lr={LR}, momentum={MOMENTUM}, weight_decay={DECAY})")
    loader = [(batch.x, batch.y)]
    return lambda: trainer.fit(loader, n_epochs=1, record_type=None, save_type=None)


@contextmanager
def cuda_is(device: torch.device) -> Iterator[None]:
    """Let `.cuda()`, which robust_overfitting calls throughout, mean the device at hand."""
    kinds: tuple[Any, Any] = (torch.Tensor, nn.Module)
    before = [kind.cuda for kind in kinds]
    for kind in kinds:
        kind.cuda = lambda self: self.to(device)
    try:
        yield
    finally:
        for kind, method in zip(kinds, before, strict=True):
            kind.cuda = method


def robust_overfitting(checkout: Path, model: nn.Module, batch: Batch) -> Step:
    """Give one iteration of the loop over batches in train_cifar.py's `main`, as it stands there.

    `main` reads the command line and data, so its loop alone is taken out of the syntax tree.
    """
    sys.path.insert(0, str(checkout))
    with cuda_is(batch.x.device):
        import train_cifar  # type: ignore[import-not-found]

    tree = ast.parse((checkout / "train_cifar.py").read_text("utf-8"))
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    loop = next(node for node in loops if ast.unparse(node.iter) == "enumerate(train_batches)")
    code = compile(ast.Module([loop], []), "train_cifar.py", "exec")
    sys.argv = ["train_cifar.py"]
    space = {
        **vars(train_cifar),
        "args": train_cifar.get_args(),
        "model": model.train(),
        "opt": torch.optim.SGD(model.parameters(), LR, MOMENTUM, weight_decay=DECAY),
        "criterion": nn.CrossEntropyLoss(),
        "lr_schedule": lambda t: LR,
        "epsilon": EPS,
        "pgd_alpha": STEP_SIZE,
        "epoch": 0,
        "train_batches": [{"input": batch.x, "target": batch.y}],
        **dict.fromkeys(
            ["train_loss", "train_acc", "train_robust_loss", "train_robust_acc", "train_n"], 0
        ),
    }

    def step() -> None:
        with cuda_is(batch.x.device):
            exec(code, space)

    return step
