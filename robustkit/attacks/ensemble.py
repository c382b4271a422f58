"""Attacks in turn, each on the points that the earlier ones left."""

from __future__ import annotations

import torch
from torch import Tensor

from robustkit.attacks.search import Among, Search
from robustkit.interfaces import Attack, Rng, Victim
from robustkit.losses.margin import margin
from robustkit.threat import ThreatModel


class Ensemble(Attack):
    """The attacks of `parts` in turn, each from the original of the points still robust."""

    norms = ("linf", "l2", "l1")

    @torch.no_grad()
    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        search = Search(self, victim, x, y, threat, target)
        rows = search.rows
        logits = victim(x, rows)
        search.settle(x, logits, rows)
        for part in self.parts(logits.shape[1], threat):
            rows = search.rows
            if not len(rows):
                break
            to = None if target is None else target[rows]
            among = Among(victim, rows)
            x_adv = part.perturb(among, x[rows], search.label[rows], threat, rng[rows], to)
            logits = victim(x_adv, rows)
            if target is None:
                loss = margin(logits, search.label[rows])
            else:
                loss = -margin(logits, target[rows])
            search.offer(x_adv, loss, search.misled(logits, rows), rows)
            search.settle(x_adv, logits, rows)
        return search.x_adv
