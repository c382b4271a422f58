"""Projected gradient ascent on the Wasserstein loss, and training against it."""

from __future__ import annotations

from robustkit import PGD, Adversarial, Attack, Loss, slot


class WPGD(PGD):
    """PGD that ascends what an error costs: it goes for the costly classes first.

    Terzi et al. 2020 (arXiv 1910.03468), definition 6; 20 steps in evaluation. As many passes as
    PGD.
    """

    name = "wpgd"
    loss: Loss = slot("wasserstein", "what is ascended; its metric says what an error costs")


class WassersteinTraining(Adversarial):
    """Minimise cross-entropy where the attack that knows the costs moved the points.

    Classes that are cheap to confuse may stay near each other. Terzi et al. 2020 (arXiv
    1910.03468), definition 6, with 8 steps.
    """

    name = "wpgd"
    attack: Attack = slot({"name": "wpgd", "steps": 8}, "moves the points")
