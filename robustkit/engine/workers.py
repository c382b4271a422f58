"""Processes that share the points of a step: each holds the model, and attacks what it is dealt."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import Tensor, nn

from robustkit.engine import server
from robustkit.engine.attacking import Attacker, Block, Found
from robustkit.engine.identity import hash_module
from robustkit.engine.quick import EXAMPLES
from robustkit.engine.subject import Points
from robustkit.engine.worker import MODEL, NOTE, SEARCHED, THREADS, reason, work
from robustkit.errors import BadValueError, BrokenPluginError, RobustkitError
from robustkit.interfaces import Attack

Rebuild = Callable[[], nn.Module]
FEWEST = 64
"""Points that are dealt at a time, at least: of fewer, each costs more."""
TURNS = 3
"""How often each process is dealt points of a step, about: points differ in what they cost."""


@contextmanager
def hired(
    devices: Sequence[torch.device], model: nn.Module, rebuild: Rebuild | None, points: Points
) -> Iterator[Workers | None]:
    """Give workers for the points, one for each of several devices; for one device, none."""
    if len(devices) == 1:
        yield None
        return
    with Workers(devices, model, rebuild, points.block(slice(0, EXAMPLES)).x) as workers:
        yield workers


def computing(workers: Workers | None) -> dict[str, int]:
    """Give what a record says of how workers compute; nothing where there are none."""
    if workers is None:
        return {}
    threads = THREADS if workers.devices[0].type == "cpu" else torch.get_num_threads()
    return {"processes": len(workers.devices), "threads": threads}


class Workers:
    """Processes that attack in place of this one; they begin with the first points they are dealt.

    Each is dealt some points of a step after another, so what a step gives is what one process
    would give. `rebuild` makes the model again in each of them; without it the model is sent as it
    is. `x` (N, C, H, W) are images that it is rewritten by (see `quickened`). Used as a context:
    its end is the processes', whatever they are at. They also end with this process, even if it
    is killed.

    A script that evaluates in several processes must be one that they can import: its own work
    stands under `if __name__ == "__main__":`. Raises BadValueError where the model cannot be sent.
    """

    def __init__(
        self, devices: Sequence[torch.device], model: nn.Module, rebuild: Rebuild | None, x: Tensor
    ) -> None:
        self.devices, self.x = devices, x
        self.hash = hash_module(model) if rebuild else ""
        try:
            self._source = pickle.dumps(rebuild or partial(_itself, model))
        # Of whatever kind a stranger's module raises.
        except Exception as error:
            raise BadValueError(
                f"the model cannot go to other processes ({reason(error)}); evaluate it in one"
            ) from None
        self._crew: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._crew:
            worker.process.kill()
        for worker in self._crew:
            worker.process.join()
            worker.connection.close()
        self._crew = []

    def attack(self, attacker: Attacker, part: Attack, points: Block) -> Iterator[Found]:
        """Do what `attacker.attack` does, and raise what it raises, in these processes.

        Raises RobustkitError where one of them is lost.
        """
        task = _packed(attacker, part)
        self._start(quick=attacker.model is not attacker.judge.model)
        # What a randomised model answers depends on the batch: then it must be that of one process.
        whole = attacker.judge.rounds > 1
        size = share(len(points), 1 if whole else len(self._crew), attacker.batch_size)
        rows = torch.arange(len(points)).split(size)
        left = deque(enumerate(rows))
        idle = list(self._crew)
        busy: dict[Connection, tuple[int, _Worker]] = {}
        replies: dict[int, Any] = {}

        def receive() -> None:
            for connection in wait(list(busy)):
                number, worker = busy.pop(connection)  # type: ignore[call-overload]
                replies[number] = worker.receive()
                idle.append(worker)

        for number in range(len(rows)):
            while number not in replies:
                while left and idle:
                    place, chosen = left.popleft()
                    worker = idle.pop()
                    worker.deal(task, points[chosen].to("cpu"))
                    busy[worker.connection] = place, worker
                receive()
            reply = replies.pop(number)
            if isinstance(reply, Exception):
                while busy:
                    receive()
                raise reply
            found, batch_size = reply
            attacker.shrink(batch_size)
            yield from found

    def _start(self, *, quick: bool) -> None:
        """Begin the processes, each with the model, where they have not begun."""
        if self._crew:
            return
        server.ready()
        # What the server forks is deaf to Ctrl-C as it is; this one, which waits for it, is not.
        with nullcontext() if server.START == server.SERVER else server.left_alone():
            for device in self.devices:
                self._crew.append(_Worker.start(device))
        first = pickle.dumps((self._source, self.hash, self.x.cpu() if quick else None))
        for worker in self._crew:
            worker.send(first)
        for worker in self._crew:
            if isinstance(error := worker.receive(), Exception):
                raise error
        self._source = b""


@dataclass
class _Worker:
    """One of the processes, and this end of the pipe to it."""

    process: multiprocessing.process.BaseProcess
    connection: Connection
    task: bytes = b""
    """What it was last told to do."""

    @classmethod
    def start(cls, device: torch.device) -> _Worker:
        context: Any = multiprocessing.get_context(server.START)
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, device), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def deal(self, task: bytes, points: Block) -> None:
        """Have the points attacked; what to do is sent only where it differs from before."""
        self.send(pickle.dumps((task if task != self.task else None, points)))
        self.task = task

    def send(self, message: bytes) -> None:
        try:
            self.connection.send_bytes(message)
        except OSError:
            raise self._lost() from None

    def receive(self) -> Any:
        try:
            return pickle.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            raise self._lost() from None

    def _lost(self) -> RobustkitError:
        self.process.join(timeout=5)
        code = self.process.exitcode
        how = f"killed by signal {-code}" if code and code < 0 else f"exit code {code}"
        return RobustkitError(
            f"a process that attacks ended ({how}); what is done is kept: go on with --resume"
        )


def share(n: int, processes: int, batch_size: int) -> int:
    """Give how many of n points are dealt at a time: even shares, not few, never over a batch.

    One process is dealt whole batches.
    """
    if processes == 1:
        return batch_size
    turns = min(TURNS, max(1, n // (FEWEST * processes)))
    return min(batch_size, -(-n // (turns * processes)))


class _Pickler(pickle.Pickler):
    """Writes an attacker without what every process has of its own."""

    def __init__(self, file: io.BytesIO, own: dict[int, str]) -> None:
        super().__init__(file)
        self.own = own

    def persistent_id(self, value: object) -> str | None:
        return self.own.get(id(value))


def _packed(attacker: Attacker, part: Attack) -> bytes:
    """Write an attacker and its attack for the other end. Raises BrokenPluginError."""
    alone = replace(attacker, workers=None)
    own = {id(alone.model): SEARCHED, id(alone.judge.model): MODEL, id(alone.note): NOTE}
    file = io.BytesIO()
    try:
        _Pickler(file, own).dump((alone, part))
    # Of whatever kind a plugin raises.
    except Exception as error:
        raise BrokenPluginError(
            f"attack '{part.name}' cannot go to other processes ({reason(error)}); run it in one"
        ) from None
    return file.getvalue()


def _itself(model: nn.Module) -> nn.Module:
    return model
