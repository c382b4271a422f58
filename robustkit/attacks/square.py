"""The Square attack: random search by patches, without gradients."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from robustkit.attacks.patches import PATCHES
from robustkit.attacks.search import Search
from robustkit.interfaces import Attack, Rng, Victim
from robustkit.losses.margin import margin
from robustkit.threat import ThreatModel, per_point

ROWS, AHEAD = 128, 16
"""Few points try several patches in a pass, to fill it up to so many rows; at most AHEAD each, for
behind one that helps the rest are void."""


class Square(Attack):
    """Andriushchenko et al. 2020 (arXiv 1912.00049), on the margin, as in AutoAttack's protocol.

    The schedule is not scaled to the number of queries, and all points share a patch's place. In l1
    patches are those of Croce and Hein 2021 (2103.01208). Few points try several patches ahead, as
    if none helped, and go on behind the first that does: the search is that of one patch a pass. A
    patch that would change nothing is not asked.
    """

    name = "square"
    norms = ("linf", "l2", "l1")
    queries: int = Field(default=5000, ge=1, description="patches tried on each point")
    p_init: float = Field(default=0.8, gt=0, le=1, description="share of the image, at first")

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
        patches = PATCHES[threat.norm](x, threat, rng, self.queries, self.p_init)
        rows, x_adv = search.rows, patches.start(x)
        logits = victim(x_adv, rows)
        best, turn = self._objective(search, logits, rows), torch.zeros_like(rows)
        full = min(ROWS, 2 * victim.most(x))  # without a graph, twice as many
        while True:
            left = search.settle(x_adv, logits, rows)
            left = left[turn[left] < self.queries]
            if len(left) < len(rows):
                search.x_adv[rows] = x_adv
                x, x_adv, logits, best = x[left], x_adv[left], logits[left], best[left]
                rows, turn = rows[left], turn[left]
            if not len(rows):
                return search.x_adv
            ahead = min(max(full // len(rows), 1), AHEAD, self.queries)
            turns = turn.unsqueeze(1) + torch.arange(ahead, device=x.device)
            due = turns < self.queries
            proposed = patches.propose(x, x_adv, turns.where(due, 0), rows)
            # A patch that changes nothing, as where all pixels are at that end, cannot help.
            asked = due & (proposed != x_adv.unsqueeze(1)).flatten(2).any(2)
            answers, losses = self._answers(search, proposed, asked, rows, logits, best)
            better = losses > best.unsqueeze(1)
            helped, first = better.any(1), better.int().argmax(1)
            at = (torch.arange(len(rows), device=x.device), first)
            x_adv = proposed[at].where(per_point(helped, x), x_adv)
            logits = answers[at].where(helped.unsqueeze(1), logits)
            best = losses[at].where(helped, best)
            used = (first + 1).where(helped, due.sum(1))
            victim.void((asked & (turns >= (turn + used).unsqueeze(1))).sum(1), rows)
            turn = turn + used

    def _answers(
        self,
        search: Search,
        proposed: Tensor,
        asked: Tensor,
        rows: Tensor,
        logits: Tensor,
        best: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Give logits (M, K, classes) and objective (M, K); where nothing is asked, those known."""
        answers = logits.unsqueeze(1).repeat(1, asked.shape[1], 1)
        losses = best.unsqueeze(1).repeat(1, asked.shape[1])
        if bool(asked.any()):
            each = rows.repeat_interleave(asked.sum(1))
            seen = search.victim(proposed[asked], each)
            answers[asked], losses[asked] = seen, self._objective(search, seen, each)
        return answers, losses

    @staticmethod
    def _objective(search: Search, logits: Tensor, rows: Tensor) -> Tensor:
        if search.target is None:
            return margin(logits, search.label[rows])
        return -margin(logits, search.target[rows])
