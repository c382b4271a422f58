"""Verdicts, decided afresh: an attack proposes points, and nothing that it says of them counts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustkit.errors import BadValueError
from robustkit.losses.margin import margin
from robustkit.threat import ThreatModel, per_point

CHUNK = 64
"""Images of each call that decides verdicts, the last one padded: kernels and so last bits depend
on a call's size, and verdicts must not."""

ROUNDS = 10
"""Seeded passes over which a randomised model is judged."""


@contextmanager
def exact() -> Iterator[None]:
    """Compute in float32 proper, and the same way twice: no TF32, no autocast, no kernel search."""
    backends: Any = torch.backends
    kernels = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    kernels += [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    before = [kernel.fp32_precision for kernel in kernels]
    search = (backends.cudnn.benchmark, backends.cudnn.deterministic)
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        try:
            for kernel in kernels:
                kernel.fp32_precision = "ieee"
            backends.cudnn.benchmark, backends.cudnn.deterministic = False, True
            yield
        finally:
            for kernel, precision in zip(kernels, before, strict=True):
                kernel.fp32_precision = precision
            backends.cudnn.benchmark, backends.cudnn.deterministic = search


@contextmanager
def seeded(device: torch.device, *key: object) -> Iterator[None]:
    """Make torch's own random numbers a function of `key`; afterwards they go on as they were."""
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "little")
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Verdicts:
    """What became of proposals for N points; `x_adv` is the original where one was rejected."""

    x_adv: Tensor
    predictions: Tensor
    broken: Tensor
    rejected: Tensor
    sizes: Tensor
    """(N,) of float64: NaN unless broken."""
    largest: float
    """The largest size that was rejected; NaN where a rejected proposal was not of numbers."""
    margins: Tensor
    """(N,) of float64: how far the logits are from broken; NaN where rejected."""

    def cpu(self) -> Verdicts:
        """Give them on the processor."""
        moved = {name: value.cpu() for name, value in vars(self).items() if name != "largest"}
        return replace(self, **moved)


class Judge:
    """Asks the model once more, and believes only that.

    A prediction is the class that most of `rounds` passes vote for, each under its own seed; a tie
    that the label is in counts as wrong, and so does a pass that gives NaN. One round is the plain
    argmax. For a randomised model this is the classifier that Cohen, Rosenfeld and Kolter 2019
    (section 2) define, estimated from a few passes, on clean and adversarial images alike.
    """

    def __init__(self, model: nn.Module, seed: int, rounds: int = 1) -> None:
        self.model, self.seed, self.rounds = model, seed, rounds

    @torch.no_grad()
    def predict(self, x: Tensor, y: Tensor) -> Tensor:
        """Give the predictions (N,) for images (N, C, H, W) with labels y (N,)."""
        return self._winners(self.look(x)[0], y) if len(x) else y.clone()

    @torch.no_grad()
    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give votes and mean logits (N, classes) of all rounds for images (N, C, H, W), N > 0."""
        found: list[tuple[Tensor, Tensor]] = []
        for start in range(0, len(x), CHUNK):
            images = x[start : start + CHUNK]
            short = CHUNK - len(images)
            padded = torch.cat((images, images[-1:].expand(short, *images.shape[1:])))
            asked = [self._ask(padded, start, turn)[: len(images)] for turn in range(self.rounds)]
            votes = torch.stack([_vote(logits) for logits in asked]).sum(0)
            found.append((votes, torch.stack(asked).mean(0)))
        votes, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
        return votes, logits

    def _ask(self, x: Tensor, start: int, turn: int) -> Tensor:
        with seeded(x.device, "verdict", self.seed, start, turn):
            logits: Tensor = self.model(x)
        return logits

    @staticmethod
    def _winners(votes: Tensor, y: Tensor) -> Tensor:
        half = votes.new_full((len(y), 1), -0.5)
        return votes.scatter_add(1, y.unsqueeze(1), half).argmax(1)

    def decide(
        self,
        proposal: Tensor,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        target: Tensor | None = None,
    ) -> Verdicts:
        """Judge proposals (N, C, H, W), N > 0, for clean-correct points x, y (N,).

        Broken is what is taken for another class than the label, or for `target` (N,). Margins are
        the lead of the label over all others, or of any other over the target, in mean logits.
        What is no number, or lies outside ball or box by more than rounding, is rejected; rounding
        is projected away before the model is asked. The box is no breach: it is clamped to; nor are
        pixels that an image file does not hold: where only such files count, they are rounded.
        """
        numbers = proposal.isfinite().flatten(1).all(1)
        x_adv = threat.clamp(proposal.where(per_point(numbers, x), x))
        size = threat.size(x_adv.double() - x.double())
        bounded = threat.norm != "none" and not math.isinf(threat.eps)
        beyond = (size > threat.eps + threat.tolerance) & bounded
        rejected = beyond | ~numbers
        x_adv = x_adv.where(per_point(~rejected, x), x)
        if bounded:
            outside = per_point((size > threat.eps) & ~rejected, x)
            x_adv = threat.project(x_adv, x).where(outside, x_adv)
        if threat.bits is not None:
            x_adv = threat.quantise(x_adv, x)
        votes, logits = self.look(x_adv)
        predictions = self._winners(votes, y)
        if target is None:
            misled, margins = predictions != y, -margin(logits, y)
        else:
            said = votes.gather(1, target.unsqueeze(1)).squeeze(1) > 0  # which NaN says nothing
            misled, margins = (predictions == target) & said, margin(logits, target)
        broken = misled & ~rejected
        sizes = threat.size(x_adv.double() - x.double())
        largest = max(size[beyond].tolist(), default=math.nan)
        return Verdicts(
            x_adv,
            predictions,
            broken,
            rejected,
            sizes.where(broken, math.nan),
            largest,
            margins.double().where(~rejected, math.nan),
        )


def _vote(logits: Tensor) -> Tensor:
    """Give a vote for the largest logit (N, classes); none where one is NaN."""
    vote = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
    return vote.where(~logits.isnan().any(1, keepdim=True), vote.new_zeros(()))


def require_float32(model: nn.Module) -> None:
    """Raise BadValueError where a weight is in another precision than verdicts are decided in."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and weight.dtype != torch.float32:
            kind = str(weight.dtype).removeprefix("torch.")
            raise BadValueError(
                f"weight '{name}' is {kind}; verdicts are decided in float32: call model.float()"
            )
