"""Free adversarial training: the perturbation from the backward pass that trains the weights."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from robustkit.component import State, slot
from robustkit.interfaces import Batch, Clock, Kit, Loss, Terms, Trainer


class Free(Trainer):
    """Train on each batch m times; a step of eps on the points comes with each on the weights.

    A perturbation stays at its place in the batch, from replay to replay and from batch to batch.
    An epoch is m passes: divide epochs by m. Shafahi et al. 2019 (arXiv 1904.12843), algorithm 1.
    """

    name = "free"
    m: int = Field(default=8, ge=1, description="optimiser steps on each batch")
    loss: Loss = slot("cross-entropy", "what is minimised there, and ascended by the points")
    _delta: Tensor = PrivateAttr()

    @property
    def replays(self) -> int:
        return self.m

    def prepare(self, kit: Kit) -> None:
        super().prepare(kit)
        self._delta = torch.zeros(0, *kit.shape)

    def adversary(self, model: nn.Module, batch: Batch, clock: Clock) -> Batch:
        return batch.moved(self._kit.threat.project(batch.x + self._carried(batch), batch.x))

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        x = batch.x.detach().requires_grad_()
        gradient = torch.zeros_like(x)
        x.register_hook(gradient.copy_)  # when the engine goes backward
        logits = model(x)
        loss = self.loss(logits, batch.y, self._kit.at(batch, clock))
        return Terms(loss, logits, {"gradient": gradient})

    def observe(self, batch: Batch, terms: Terms) -> None:
        threat = replace(self._kit.threat, low=-math.inf, high=math.inf)
        # Where scaled gradients overflow, neither weights nor points take a step.
        gradient = terms.more["gradient"].nan_to_num(0, 0, 0)
        step = self._carried(batch) + threat.eps * threat.steepest(gradient)
        delta = threat.project(step, torch.zeros_like(step))
        self._delta = torch.cat((delta, self._delta.to(delta)[len(delta) :]))

    def _carried(self, batch: Batch) -> Tensor:
        """Give the perturbation (N, C, H, W) at each point's place; a new place has none."""
        place = torch.arange(len(batch)) if batch.place is None else batch.place
        delta = torch.zeros_like(batch.x)
        known = place < len(self._delta)
        delta[known] = self._delta.to(delta)[place[known]]
        return delta

    def state_dict(self) -> State:
        return {"delta": self._delta}

    def load_state_dict(self, state: State) -> None:
        self._delta = state["delta"]
