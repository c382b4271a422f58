"""What the engine hands trainers and generators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from robustkit.engine.points import Points
from robustkit.engine.presenting import Presenting
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim, blamed
from robustkit.engine.winograd import quick_passes
from robustkit.engine.workshop import Workshop
from robustkit.interfaces import At, Attack, Batch, Clock, Generator, Trainer, hard_labels
from robustkit.threat import ThreatModel


class TrainingKit:
    """See robustkit.Kit. Random numbers are keyed by seed, name, step and point."""

    def __init__(
        self,
        points: Points,
        presenting: Presenting,
        threat: ThreatModel,
        seed: int,
        workshop: Workshop,
        total: Callable[[Sequence[Tensor]], Sequence[Tensor]] = list,
    ) -> None:
        self.shape, self.classes = points.train.shape, points.train.classes
        self.counts, self.threat, self.seed = points.counts, threat, seed
        self.points = len(presenting.images)
        self._presenting, self._workshop, self._total = presenting, workshop, total

    def perturb(
        self,
        attack: Attack,
        model: nn.Module,
        batch: Batch,
        clock: Clock,
        name: str = "",
        threat: ThreatModel | None = None,
    ) -> Tensor:
        """Attack every point to the end, and keep the result inside the threat."""
        threat = threat or self.threat
        victim = CountingVictim(model, len(batch), batch.x.device, drop=False, whole=True)
        rng = self.rng(batch, clock, f"{attack.name} {name}".strip())
        y = batch.y if attack.soft else hard_labels(batch.y)
        with blamed(attack), quick_passes(model):
            x_adv = attack.perturb(victim, batch.x, y, threat, rng)
        return threat.project(x_adv.detach().to(batch.x), batch.x)

    def augmented(self, batch: Batch, clock: Clock, name: str) -> Tensor:
        """Augment the batch's points from the data set anew, under each name differently."""
        return self._presenting.again(batch, clock, name)

    def rng(self, batch: Batch, clock: Clock, name: str) -> PointRng:
        """Give random numbers for the batch's points at this step."""
        return PointRng(self.seed, f"{name} at {clock.step}", batch.ids)

    def at(self, batch: Batch, clock: Clock, name: str = "loss") -> At:
        """Give what a loss wants to know of this step."""
        return At(clock, batch.ids, self.rng(batch, clock, name))

    def total(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Add each of the tensors up over all processes, in one exchange."""
        return self._total(tensors)

    def synthesise(self, generator: Generator | Path, n: int, epochs: int | None = None) -> Path:
        """Train a generator on the real training points, draw n images, and give their file."""
        return self._workshop.synthesise(generator, n, epochs)

    def sifted(self, samples: Path, top: float, labeller: Trainer) -> Path:
        """Label images by a classifier, and keep the share of each class that it is surest of."""
        return self._workshop.sifted(samples, top, labeller)
