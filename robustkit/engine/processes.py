"""Device, precision and processes of a training: what is shared, averaged and told to all."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.optim import Optimizer

from robustkit.data.batches import Batches, DeviceImages, Share, SharedBatches
from robustkit.engine.computing import kernels
from robustkit.engine.device import keep_memory, pick_device, shared
from robustkit.errors import BadValueError, RobustkitError

T = TypeVar("T")
SHARING = "ddp_spawn"
"""Fabric's way to start several processes; forked ones would inherit threads and CUDA's state."""
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class Processes:
    """One of the processes that train together, each with a whole copy of the model.

    Nothing wraps the model: gradients are averaged after backward, so an inner loop or a forward
    through part of the model is as free as in one process.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.fabric, self.device = fabric, fabric.device
        self.rank, self.world = fabric.global_rank, fabric.world_size

    def batches(
        self, images: DeviceImages, batch_size: int, seed: int, share: Share | None = None
    ) -> Batches:
        """Share each batch among the processes. Raises BadValueError where it is too small."""
        if batch_size < self.world:
            raise BadValueError(
                f"fit.batch_size {batch_size} is too small for {self.world} processes"
            )
        if share:
            return SharedBatches(images, share, batch_size, seed, self.rank, self.world)
        return Batches(images, batch_size, seed, self.rank, self.world)

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute in the run's precision."""
        return self.fabric.autocast()

    def seed(self, *key: object) -> None:
        """Seed torch's global random numbers, which weights and dropout are drawn from."""
        code = hashlib.blake2b(repr(key).encode(), digest_size=7)
        torch.manual_seed(int.from_bytes(code.digest(), "little"))

    def backward(self, loss: Tensor, only: nn.Module | None = None) -> None:
        """Send a loss (N,) backward as its mean over points, to the weights of one module alone."""
        inputs = [p for p in only.parameters() if p.requires_grad] if only else None
        self.fabric.backward(loss.float().mean(), inputs=inputs)

    def step(self, optimizer: Optimizer, model: nn.Module, clip: float | None) -> bool:
        """Clip the gradient and follow it; a scaled one is unscaled first.

        False where a scaled gradient has overflown: no step is then taken, in any process, and
        the next one is scaled less.
        """
        if clip is not None:
            self.fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)
        scale = self._scale()
        self.fabric.strategy.optimizer_step(optimizer)
        return self._scale() >= scale

    def _scale(self) -> float:
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return float(scaler.get_scale()) if scaler else 1.0

    def scaler_state(self) -> dict[str, Any]:
        """Give the state of the gradient's scaling; empty where there is none."""
        return self.fabric.strategy.precision.state_dict()

    def to_device(self, state: dict[str, Any]) -> dict[str, Any]:
        """Give plain data and tensors with the tensors on this process's device."""
        moved: dict[str, Any] = move_data_to_device(state, self.device)
        return moved

    def load_scaler_state(self, state: dict[str, Any]) -> None:
        """Take the state of the gradient's scaling back."""
        self.fabric.strategy.precision.load_state_dict(state)

    def average(self, module: nn.Module, n: int, sums: Iterable[Tensor] = ()) -> Tensor:
        """Average gradients over all processes' points, and add up `sums`.

        One flat all-reduce, each process weighing with its `n` points. Gives the sums, after the
        number of points.
        """
        tally = torch.stack([torch.as_tensor(float(n), device=self.device), *sums]).float()
        if self.world == 1:
            return tally
        gradients = [
            p.grad if p.grad is not None else torch.zeros_like(p)
            for p in module.parameters()
            if p.requires_grad
        ]
        flat = torch.cat([*(n * g.flatten() for g in gradients), tally])
        torch.distributed.all_reduce(flat)
        tally = flat[-len(tally) :]
        mean = (flat[: -len(tally)] / tally[0]).split([g.numel() for g in gradients])
        for parameter, value in zip(
            (p for p in module.parameters() if p.requires_grad), mean, strict=True
        ):
            parameter.grad = value.view_as(parameter)
        return tally

    def share_buffers(self, module: nn.Module) -> None:
        """Give all processes the first one's buffers (running statistics), as DDP does."""
        buffers = [b for b in module.buffers() if b.is_floating_point()]
        if self.world == 1 or not buffers:
            return
        flat = torch.cat([b.flatten() for b in buffers])
        torch.distributed.broadcast(flat, 0)
        for buffer, value in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(value.view_as(buffer))

    def total(self, sums: Tensor) -> Tensor:
        """Add a tensor up over all processes."""
        if self.world > 1:
            torch.distributed.all_reduce(sums)
        return sums

    def totals(self, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """Add each of several tensors up over all processes, by one all-reduce."""
        if self.world == 1:
            return tensors
        flat = self.total(torch.cat([tensor.flatten() for tensor in tensors]))
        parts = flat.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def gather(self, values: Tensor) -> Tensor:
        """Join the rows (n, ...) of all processes in their order; n may differ by one."""
        if self.world == 1:
            return values
        n = torch.zeros(self.world, dtype=torch.long, device=self.device)
        n[self.rank] = len(values)
        counts = self.total(n).tolist()
        padded = values.new_zeros((max(counts), *values.shape[1:]))
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def lead(self, work: Callable[[], T]) -> T:
        """Let the first process alone do something; all get its result, or its error."""
        outcome: T | RobustkitError | None = None
        if self.rank == 0:
            try:
                outcome = work()
            except RobustkitError as error:
                outcome = error
        if self.world > 1:
            outcome = self.fabric.broadcast(outcome)
        if isinstance(outcome, RobustkitError):
            raise outcome
        return outcome  # type: ignore[return-value]


def launch(
    work: Callable[..., T],
    arguments: tuple[object, ...],
    *,
    processes: int,
    device: str,
    precision: str,
    deterministic: bool = True,
) -> T:
    """Call `work(Processes, *arguments)` in each of the processes; give what the first one gives.

    Raises BadValueError for a device that is not there, and what `work`
    raises of robustkit's errors.
    """
    kind, devices = _devices(device, processes, precision)
    # Fabric tells of itself on stderr, where users look for what they did wrong.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=kind,
        devices=devices,
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
        strategy="auto" if processes == 1 else SHARING,
    )
    call = partial(_call, work, arguments, deterministic)
    if processes == 1:
        return call(fabric)
    others = set(multiprocessing.active_children())
    try:
        # Fabric looks for modules inside what it is given, and stumbles over frozen dataclasses.
        outcome = fabric.launch(_in_process, call)
    except BaseException:
        # A process that waits for its fallen siblings would outlive this one.
        for child in set(multiprocessing.active_children()) - others:
            child.kill()
            child.join()
        raise
    if isinstance(outcome, RobustkitError):
        raise outcome
    return outcome


def _call(
    work: Callable[..., T], arguments: tuple[object, ...], deterministic: bool, fabric: Fabric
) -> T:
    keep_memory()
    with kernels(fabric.device, deterministic=deterministic):
        return work(Processes(fabric), *arguments)


def _in_process(fabric: Fabric, *calls: Callable[[Fabric], Any]) -> Any:
    try:
        return calls[0](fabric)
    except RobustkitError as error:
        return error


def _devices(name: str, processes: int, precision: str) -> tuple[str, int | list[int]]:
    """Give the kind of device, and how many or which of them."""
    device = pick_device(name)
    shared(device, processes)
    if device.type == "cpu" and precision == "16":
        raise BadValueError("fit.precision '16' needs a GPU; on 'cpu' use '32' or 'bf16'")
    one = processes == 1 and device.index is not None
    return device.type, [device.index] if one else processes
