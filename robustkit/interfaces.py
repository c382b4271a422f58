"""The types that plugins implement and the few that they are handed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, Self

from pydantic import PrivateAttr

from robustkit.component import Component
from robustkit.threat import ThreatModel

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


@dataclass(frozen=True)
class Clock:
    """How far training has come. Components read it and never count by themselves."""

    epoch: int = 0
    epochs: int = 1
    step: int = 0
    steps: int = 1

    @property
    def progress(self) -> float:
        """The share of all steps that are done, in [0, 1)."""
        return self.step / self.steps

    def reached(self, epochs: float) -> bool:
        """Say whether so many epochs are done; below 1, that share of all of them."""
        return self.step * self.epochs >= epochs * (self.epochs if epochs < 1 else 1) * self.steps


@dataclass(frozen=True)
class Batch:
    """Points of one step: x (N, C, H, W) in [0, 1], y (N,) or soft (N, classes), ids (N,).

    `source` is 0 for real points and 1 for generated ones; `y` is -1 where the label is unknown.
    `clean` is where the points were before an adversary moved them, if one did; `place` (N,) says
    which points of the step, over all processes, these are. `twin` holds other views of the same
    points, for trainers that compare two; `shift` (N, ...) is what an adversary adds to what the
    model makes of the points inside, for trainers that attack there.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    source: Tensor
    clean: Tensor | None = None
    place: Tensor | None = None
    twin: Tensor | None = None
    shift: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def replace(self, **changes: Tensor) -> Batch:
        """Give the batch with some of its tensors changed."""
        return Batch(**{**vars(self), **changes})

    def moved(self, x: Tensor) -> Batch:
        """Give the batch at other points; where they were first stays in `clean`."""
        return self.replace(x=x, clean=self.x if self.clean is None else self.clean)


@dataclass(frozen=True)
class Terms:
    """What an objective gives: loss (N,), logits (N, classes), and more per point (N, ...)."""

    loss: Tensor
    logits: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)


def hard_labels(y: Tensor) -> Tensor:
    """Give labels (N,) of labels that may be soft (N, classes): the class of most weight."""
    return y if y.dim() == 1 else y.argmax(1)


class Rng(Protocol):
    """Random numbers that are a function of seed, component, point and `at`, and of nothing else.

    `at` is any tuple, string or number that tells one draw from another. Draws have shape
    (N, *shape); `rng[rows]` speaks for some of the points, `rng.shared` gives one draw of `shape`
    for all points.
    """

    def __getitem__(self, rows: Tensor) -> Self: ...
    @property
    def shared(self) -> Rng: ...
    def uniform(self, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        """Uniform in [0, 1)."""
        ...

    def normal(self, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        """Standard normal."""
        ...

    def choice(self, n: int, shape: Sequence[int] = (), at: object = 0) -> Tensor:
        """Integers in [0, n)."""
        ...


class Victim(Protocol):
    """The model as an attack sees it: images to logits, each pass counted by point."""

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Give the logits of `x`; `rows` says which of the call's points `x` holds."""
        ...

    def done(self, logits: Tensor, y: Tensor) -> Tensor:
        """Say which points need no more search: (N,) of bool; in training none."""
        ...

    def void(self, passes: Tensor, rows: Tensor) -> None:
        """Take back `passes` (M,) of rows (M,): asked ahead of a search, which went another way."""
        ...

    def late(self, rows: Tensor) -> None:
        """Hear which of the call's points a clock stopped the search of."""
        ...

    def most(self, x: Tensor) -> int:
        """Say how many images like those of `x` fill a pass both ways: more save no time."""
        ...


@dataclass(frozen=True)
class At:
    """Where a loss is asked: the clock, the points' ids, and random numbers for them."""

    clock: Clock = Clock()
    ids: Tensor | None = None
    rng: Rng | None = None


@dataclass(frozen=True)
class Spent:
    """What a part of an attack did to each point that it was given: all (M,)."""

    broken: Tensor
    forwards: Tensor
    backwards: Tensor


class Attack(Component):
    """A search for adversarial examples. The engine decides every verdict afresh."""

    kind: ClassVar[str] = "attack"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    minimal: ClassVar[bool] = False
    """Whether the attack itself looks for the smallest perturbation (and takes eps = inf)."""
    soft: ClassVar[bool] = False
    """Whether it can ascend the loss of soft labels (N, classes); else it is given hard ones."""
    weak: ClassVar[bool] = False
    """Whether it may miss adversaries that a search would find (noise, corruptions)."""
    separate: ClassVar[bool] = False
    """Whether each of its parts is measured on every point; its result is then their mean."""

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        """Propose an adversarial example (N, C, H, W) for each of `x` (N, C, H, W), `y` (N,).

        `target` (N,) asks for those classes instead of any wrong one.
        """
        raise NotImplementedError

    def parts(self, classes: int, threat: ThreatModel) -> Sequence[Attack]:
        """Give the attacks that an ensemble runs in turn, each on the points still robust."""
        return (self,)

    def remarks(self, classes: int, threat: ThreatModel) -> Sequence[str]:
        """Say in what this run differs from what the attack's name promises, a line each."""
        return ()

    def findings(self, spent: Sequence[Spent], threat: ThreatModel) -> Sequence[str]:
        """Say of an evaluation that ended what its passes show, a line each; `spent` by part."""
        return ()


class Loss(Component):
    """A loss, always per point."""

    kind: ClassVar[str] = "loss"

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:
        """Give the loss (N,) of logits (N, classes) for labels y (N,) or soft (N, classes)."""
        raise NotImplementedError

    def ascend(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:
        """Give what an attack maximises (N,): this loss, or a deterministic one if it samples."""
        return self(logits, y, at)


class Kit(Protocol):
    """What the engine hands a trainer or generator before training."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    counts: Tensor
    """Real training points of each class (classes,)."""
    points: int
    """Ids of training points are below this: those of real ones first, then of generated ones."""
    threat: ThreatModel

    def perturb(
        self,
        attack: Attack,
        model: nn.Module,
        batch: Batch,
        clock: Clock,
        name: str = "",
        threat: ThreatModel | None = None,
    ) -> Tensor:
        """Attack the batch's points under the recipe's threat, or another: x_adv like batch.x.

        Searches of one step under different names draw different random numbers.
        """
        ...

    def augmented(self, batch: Batch, clock: Clock, name: str) -> Tensor:
        """Augment the batch's points from the data set anew, under each name differently."""
        ...

    def rng(self, batch: Batch, clock: Clock, name: str) -> Rng:
        """Give random numbers for the batch's points at this step, apart from other names'."""
        ...

    def at(self, batch: Batch, clock: Clock, name: str = "loss") -> At:
        """Give what a loss wants to know of this step."""
        ...

    def total(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Add each of the tensors up over all processes, which must all ask for it."""
        ...

    def synthesise(self, generator: Generator | Path, n: int, epochs: int | None = None) -> Path:
        """Train a generator on the real training points, draw n images, and give their file.

        It is trained by the recipe of its name, where there is one, else by this run's; `epochs`
        stand for its own. A path is one of a trained generator, or of its run.
        """
        ...

    def sifted(self, samples: Path, top: float, labeller: Trainer) -> Path:
        """Label images by a classifier, and keep the share of each class that it is surest of.

        The classifier is trained on the real training points by `labeller`. Images of known class
        are dropped where it reads another. Gives the file of those that are left.
        """
        ...


@dataclass(frozen=True)
class Generated:
    """Generated points that make up a share of each batch, in (0, 1)."""

    path: Path
    """A file of samples, or a folder of class folders of images."""
    share: float


class Trainer(Component):
    """A way of training: where the points are moved to, and what is minimised there.

    The engine owns averaging over points and processes, precision, schedules, logging and
    checkpoints.
    """

    kind: ClassVar[str] = "trainer"
    _kit: Kit = PrivateAttr()

    @property
    def replays(self) -> int:
        """Optimiser steps taken on each batch (free training has several)."""
        return 1

    def generated(self, kit: Kit) -> Generated | None:
        """Bring generated points to train on; asked once, before anything is prepared."""
        return None

    def prepare(self, kit: Kit) -> None:
        self._kit = kit

    def adversary(self, model: nn.Module, batch: Batch, clock: Clock) -> Batch:
        """Move the points; the model is frozen, and in eval mode unless the recipe says train."""
        return batch

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        """Give what is minimised. May run several times a step, so it changes no state."""
        raise NotImplementedError

    def enough(self, metrics: Mapping[str, float]) -> str:
        """Say, after an epoch, why training should end now; empty to go on.

        The run is then finished, with the epoch that was selected so far.
        """
        return ""


class Generator(Component):
    """Something that is trained on images and then makes more of them."""

    kind: ClassVar[str] = "generator"
    conditional: ClassVar[bool] = False
    """Whether samples are of the classes that are asked for."""

    @classmethod
    def learns_labels(cls) -> bool:
        """Whether it is of no use without labels: it makes images by class, or classifies."""
        return cls.conditional or cls.classifier is not Generator.classifier

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.ModuleDict:
        """Make the networks, one named part each (`generator`, `discriminator`, ...)."""
        raise NotImplementedError

    def step(
        self, parts: nn.ModuleDict, batch: Batch, clock: Clock, rng: Rng
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (part, loss (N,)); the engine then steps that part's optimiser, and goes on."""
        raise NotImplementedError

    def codes(self, n: int, rng: Rng) -> Tensor:
        """Draw n codes (n, ...), each of which `decode` makes an image of."""
        raise NotImplementedError

    def decode(self, parts: nn.ModuleDict, codes: Tensor, y: Tensor | None) -> Tensor:
        """Make images (n, C, H, W) in [0, 1] of codes; y (n,) are the classes of conditional ones.

        The path between two codes is one between two images.
        """
        raise NotImplementedError

    def sample(self, parts: nn.ModuleDict, n: int, y: Tensor | None, rng: Rng) -> Tensor:
        """Draw n images (n, C, H, W) in [0, 1], of classes y (n,) where given."""
        return self.decode(parts, self.codes(n, rng), y)

    def classifier(self, parts: nn.ModuleDict) -> nn.Module | None:
        """Give the classifier that came out of training, where there is one."""
        return None


class Architecture(Component):
    """A recipe for a model: images (N, C, H, W) in [0, 1] to logits (N, classes).

    The module normalises inside, and has `features` and `head` where `head(features(x))` is the
    model.
    """

    kind: ClassVar[str] = "model"

    def build(
        self, shape: tuple[int, int, int], classes: int, mean: Sequence[float], std: Sequence[float]
    ) -> nn.Module:
        """Make the module with fresh weights; mean and std (C,) are those of the training data."""
        raise NotImplementedError


class Images(Protocol):
    """Labelled images: the one thing that a data set is."""

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    labels: Tensor
    """Class of each image (N,) of int64; -1 is unknown."""

    def __len__(self) -> int: ...

    def take(self, ids: Tensor) -> Tensor:
        """Give the images of ids (n,) as uint8 (n, C, H, W)."""
        ...


class Dataset(Component):
    """Where images come from: a training part and a test part."""

    kind: ClassVar[str] = "dataset"

    def split(self, part: Literal["train", "test"]) -> Images:
        """Load one part. Raises BadValueError, saying what is missing and how to get it."""
        raise NotImplementedError
