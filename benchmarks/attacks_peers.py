"""The attacks of peers for attacks.py, as a user of theirs calls them: (model, x, y, eps) to x_adv.

All are linf in the box [0, 1]; PGD takes 40 steps of eps / 16 from a random start, APGD 100 steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Run = Callable[[nn.Module, Tensor, Tensor, float], Tensor]
STEPS = {"pgd": 40, "apgd-ce": 100}
SHARE = 2.5 / STEPS["pgd"]
"""Of eps, what a step of PGD is."""


def reference(attack: str) -> Run:
    """auto-attack, all points in one batch."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        from autoattack import AutoAttack  # type: ignore[import-not-found]

        adversary = AutoAttack(model, norm="Linf", eps=eps, verbose=False, device="cpu", seed=0)
        if attack != "autoattack":
            adversary.attacks_to_run = [attack]
        found: Tensor = adversary.run_standard_evaluation(x.contiguous(), y, bs=len(x))
        return found

    return run


def torchattacks(attack: str) -> Run:
    """torchattacks; its AutoAttack takes 10 steps as shipped and 100 here."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        import torchattacks as library  # type: ignore[import-not-found]

        if attack == "pgd":
            adversary = library.PGD(model, eps=eps, alpha=SHARE * eps, steps=STEPS["pgd"])
        elif attack == "apgd-ce":
            adversary = library.APGD(model, eps=eps, steps=STEPS["apgd-ce"], loss="ce")
        else:
            adversary = library.AutoAttack(model, eps=eps, seed=0)
            for part in adversary._autoattack.attacks[:3]:
                part.steps = 100
        found: Tensor = adversary(x, y)
        return found

    return run


def foolbox(attack: str) -> Run:
    """Foolbox, which has PGD alone of the three."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        import foolbox as library  # type: ignore[import-not-found]

        adversary = library.attacks.LinfPGD(abs_stepsize=SHARE * eps, steps=STEPS["pgd"])
        asked = library.PyTorchModel(model, (0, 1), device="cpu")
        found: Tensor = adversary(asked, x, y, epsilons=eps)[1]
        return found

    return run


def art(attack: str) -> Run:
    """The Adversarial Robustness Toolbox; its AutoAttack is another list."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        from art.attacks.evasion import (
            AutoProjectedGradientDescent,
            ProjectedGradientDescentPyTorch,
        )
        from art.estimators.classification import PyTorchClassifier

        classes = model(x[:1]).shape[1]
        shape, loss = tuple(x.shape[1:]), nn.CrossEntropyLoss()
        estimator = PyTorchClassifier(
            model, loss, shape, classes, clip_values=(0.0, 1.0), device_type="cpu"
        )
        if attack == "pgd":
            adversary = ProjectedGradientDescentPyTorch(
                estimator,
                eps=eps,
                eps_step=SHARE * eps,
                max_iter=STEPS["pgd"],
                num_random_init=1,
                batch_size=len(x),
                verbose=False,
            )
        else:
            adversary = AutoProjectedGradientDescent(
                estimator,
                eps=eps,
                eps_step=2 * eps,
                max_iter=STEPS["apgd-ce"],
                nb_random_init=1,
                batch_size=len(x),
                loss_type="cross_entropy",
                verbose=False,
            )
        return torch.from_numpy(adversary.generate(x.numpy(), y.numpy()))

    return run


def adversarial_library(attack: str) -> Run:
    """adversarial-library's functions."""

    def run(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        if attack == "pgd":
            from adv_lib.attacks import pgd_linf  # type: ignore[import-not-found]

            size = SHARE * eps
            found: Tensor = pgd_linf(model, x, y, eps, steps=STEPS["pgd"], absolute_step_size=size)
        else:
            from adv_lib.attacks.auto_pgd import apgd  # type: ignore[import-not-found]

            steps = STEPS["apgd-ce"]
            found = apgd(model, x, y, eps, float("inf"), n_iter=steps, loss_function="ce")
        return found

    return run


PEERS: dict[str, tuple[Callable[[str], Run], tuple[str, ...]]] = {
    "reference": (reference, ("autoattack", "apgd-ce")),
    "torchattacks": (torchattacks, ("autoattack", "apgd-ce", "pgd")),
    "foolbox": (foolbox, ("pgd",)),
    "art": (art, ("apgd-ce", "pgd")),
    "adversarial-library": (adversarial_library, ("apgd-ce", "pgd")),
}
"""What runs an attack, and which attacks it has."""
