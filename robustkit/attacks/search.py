"""What every attack's search shares: which points remain, and the best proposal for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from robustkit.errors import BadValueError
from robustkit.interfaces import Attack, Rng, Victim, hard_labels
from robustkit.threat import ThreatModel, per_point

Objective = Callable[[Tensor, Tensor], Tensor]
"""What is ascended: logits (M, classes) and rows (M,) to (M,)."""


FEW = 64
"""Rows that fill a pass of a model."""


class Search:
    """One call of an attack on x (N, C, H, W), y (N,) or soft (N, classes), and target (N,).

    `x_adv` holds the strongest proposal so far, at first the original. `rows` are the places of
    points that `victim.done` has not released; in training none is released.

    Raises BadValueError for a norm that the attack does not know, and for an unbounded eps where
    the attack does not look for the smallest perturbation itself.
    """

    def __init__(
        self,
        attack: Attack,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        target: Tensor | None = None,
    ) -> None:
        if threat.norm not in attack.norms:
            raise BadValueError(
                f"attack '{attack.name}' does not work in norm '{threat.norm}'; "
                f"it works in {', '.join(attack.norms)}"
            )
        if math.isinf(threat.eps) and threat.norm != "none" and not attack.minimal:
            raise BadValueError(
                f"attack '{attack.name}' needs an eps, not 'inf'; "
                "'fmn' looks for the smallest perturbation"
            )
        self.victim, self.x, self.y, self.target = victim, x, y, target
        self.label = hard_labels(y)
        self.x_adv = x.detach().clone()
        self.loss = x.new_full((len(x),), -torch.inf)
        self.wrong = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.over = self.wrong.clone()

    @property
    def rows(self) -> Tensor:
        """The places (M,) of the points that are still searched."""
        return (~self.over).nonzero().squeeze(1)

    def misled(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Say where the prediction is what the attack wants: (M,) of bool."""
        predicted = logits.argmax(1)
        if self.target is None:
            return predicted != self.label[rows]
        return predicted == self.target[rows]

    def offer(self, x_adv: Tensor, loss: Tensor, misled: Tensor, rows: Tensor) -> None:
        """Take each proposal that is stronger than what its point has.

        One that misleads the model is stronger than one that does not; of two alike the one of
        higher loss is.
        """
        before = self.wrong[rows]
        stronger = (misled & ~before) | ((misled == before) & (loss > self.loss[rows]))
        self._take(stronger, x_adv, rows)
        self.wrong[rows] = before | misled
        self.loss[rows] = loss.where(stronger, self.loss[rows])

    def accept(self, x_adv: Tensor, logits: Tensor, rows: Tensor, threat: ThreatModel) -> Tensor:
        """Take adversarial examples in the ball, the smallest of each point; give what remains.

        With a finite eps such an example ends a search.
        """
        misled = self.misled(logits, rows)
        size = threat.size(x_adv - self.x[rows])
        fits = (misled & (size <= threat.eps)).nonzero().squeeze(1)
        if len(fits):
            self.offer(x_adv[fits], -size[fits], misled[fits], rows[fits])
            if not math.isinf(threat.eps):
                self.settle(x_adv[fits], logits[fits], rows[fits])
        return (~self.over[rows]).nonzero().squeeze(1)

    def settle(self, x_adv: Tensor, logits: Tensor, rows: Tensor) -> Tensor:
        """Take the proposals of points that need no more search; give which of `rows` remain."""
        over = self.victim.done(logits, self.label[rows])
        if self.target is not None:
            over = over & self.misled(logits, rows)
        if not over.any():
            return torch.arange(len(rows), device=rows.device)
        self._take(over, x_adv, rows)
        self._end(rows[over])
        return (~self.over[rows]).nonzero().squeeze(1)

    def _end(self, rows: Tensor) -> None:
        self.over[rows] = True

    def _take(self, chosen: Tensor, x_adv: Tensor, rows: Tensor) -> None:
        self.x_adv[rows] = x_adv.where(per_point(chosen, x_adv), self.x_adv[rows])

    def ascent(
        self, x_adv: Tensor, objective: Objective, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Give the objective (M,), its gradient like `x_adv`, and the logits (M, classes).

        Of more than fill a pass, so many even parts are asked: a graph takes memory. Where no
        gradient reaches the image, it is 0.
        """
        passes = -(-len(rows) // self.victim.most(x_adv)) or 1
        parts = zip(x_adv.tensor_split(passes), rows.tensor_split(passes), strict=True)
        found = [self._ascent(some, objective, of) for some, of in parts]
        value, gradient, logits = (torch.cat(each) for each in zip(*found, strict=True))
        return value, gradient, logits

    def _ascent(
        self, x_adv: Tensor, objective: Objective, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            x_adv = x_adv.detach().requires_grad_()
            logits = self.victim(x_adv, rows)
            value = objective(logits, rows)
            gradient = torch.zeros_like(x_adv)
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), x_adv)
        return value.detach(), gradient, logits.detach()


class Among:
    """A victim for some of a call's points: its rows are counted from theirs."""

    def __init__(self, victim: Victim, rows: Tensor) -> None:
        self.victim, self.among = victim, rows

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        return self.victim(x, self.among if rows is None else self.among[rows])

    def done(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.victim.done(logits, y)

    def void(self, passes: Tensor, rows: Tensor) -> None:
        self.victim.void(passes, self.among[rows])

    def late(self, rows: Tensor) -> None:
        self.victim.late(self.among[rows])

    def most(self, x: Tensor) -> int:
        return self.victim.most(x)


class Together(Search):
    """Searches of some points of another one for several targets (M, K) at once.

    Each point stands in K rows that follow each other; where one of them ends, all do. A row of a
    model's pass costs more among few, so few points are searched for many targets at once.
    """

    def __init__(
        self, attack: Attack, whole: Search, points: Tensor, targets: Tensor, threat: ThreatModel
    ) -> None:
        self.whole, self.points, self.k = whole, points, targets.shape[1]
        self.to, rows = targets.flatten(), points.repeat_interleave(self.k)
        asked = None if whole.target is None else self.to
        victim = Among(whole.victim, rows)
        super().__init__(attack, victim, whole.x[rows], whole.label[rows], threat, asked)
        self._ended = torch.full_like(points, -1)

    def _end(self, rows: Tensor) -> None:
        self._ended[rows // self.k] = rows
        self.over.view(-1, self.k)[rows // self.k] = True

    def conclude(self) -> None:
        """Give the other search what was found: what ended a point's searches, or the strongest."""
        found = (self.x_adv, self.loss, self.wrong)
        each = (values.unflatten(0, (-1, self.k)).unbind(1) for values in found)
        for x_adv, loss, wrong in zip(*each, strict=True):
            self.whole.offer(x_adv, loss, wrong, self.points)
        ended = (self._ended >= 0).nonzero().squeeze(1)
        self.whole.x_adv[self.points[ended]] = self.x_adv[self._ended[ended]]
        self.whole.over[self.points[ended]] = True


def target_by_target(
    attack: Attack, search: Search, targets: Tensor, threat: ThreatModel
) -> Iterator[Together]:
    """Search all points that remain for their first target, then for all others (N, K) together.

    Most of what a target breaks, the first one does. The points come in groups of no more rows
    than the call has, or FEW, which is what bounds the memory.
    """
    for part in (targets[:, :1], targets[:, 1:]):
        most = max(len(search.x), FEW) // max(part.shape[1], 1)
        for points in search.rows.split(max(most, 1)) if part.shape[1] else ():
            together = Together(attack, search, points, part[points], threat)
            yield together
            together.conclude()


def drawn(threat: ThreatModel, rng: Rng, shape: Sequence[int], at: object) -> Tensor:
    """Draw directions (N, *shape) to start in: uniform in linf, else normal."""
    return 2 * rng.uniform(shape, at) - 1 if threat.norm == "linf" else rng.normal(shape, at)


def ranked_targets(logits: Tensor, y: Tensor, most: int) -> Tensor:
    """Give the wrong classes of highest logit, at most `most` and classes - 1 of them: (N, K).

    Where the prediction is right, these are the ranks 2, 3, ... of the logits.
    """
    others = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    return others.topk(min(most, logits.shape[1] - 1), dim=1).indices


def fewer_targets(name: str, most: int, classes: int) -> list[str]:
    """Say that an attack has fewer targets than it would take."""
    if classes - 1 >= most:
        return []
    return [f"{name}: {classes - 1} of {most} targets, for there are {classes} classes"]


def annealed(first: float, last: float, progress: float) -> float:
    """Go from the first value to the last along a cosine, progress in [0, 1)."""
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
