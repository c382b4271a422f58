"""One of the processes that share a step: it holds the model and attacks what it is dealt."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import nn

from robustkit.engine.attacking import Attacker, Found
from robustkit.engine.identity import hash_module
from robustkit.engine.quick import quickened
from robustkit.engine.subject import lent
from robustkit.errors import BadValueError, RobustkitError
from robustkit.interfaces import Attack

MODEL, SEARCHED, NOTE = "model", "searched", "note"
"""What an attacker holds that does not travel: each process has its own."""

THREADS = 1
"""Of each process on the processor: two of one thread each beat one of two."""


def work(connection: Connection, device: torch.device) -> None:
    """Answer each message with a result or an error, until the other end is closed.

    The first message says what model it is, the others what is to be attacked.
    """
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if device.type == "cpu":
        torch.set_num_threads(THREADS)
    bench = None
    with ExitStack() as stack:
        while (message := _heard(connection)) is not None:
            reply: Any = None
            try:
                if bench is None:
                    model, searched = _models(message, device, stack)
                    bench = Bench(device, {MODEL: model, SEARCHED: searched, NOTE: _unheard})
                else:
                    reply = bench.attack(message)
            except RobustkitError as error:
                reply = error
            except Exception:
                reply = RuntimeError(f"in a process that attacks:\n{traceback.format_exc()}")
            connection.send_bytes(pickle.dumps(reply))


@dataclass
class Bench:
    """What this process attacks with: its own of what does not travel, and its last task."""

    device: torch.device
    own: dict[str, Any]
    attacker: Attacker | None = None
    part: Attack | None = None

    def attack(self, message: bytes) -> tuple[list[Found], int]:
        """Attack points; give what was found, and the batch size that memory allows."""
        task, points = pickle.loads(message)
        if task is not None:
            self.attacker, self.part = _Unpickler(task, self.own).load()
        if self.attacker is None or self.part is None:
            raise RuntimeError("points came before what is to be done with them")
        found = list(self.attacker.attack(self.part, points.to(self.device)))
        return found, self.attacker.batch_size


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, own: dict[str, Any]) -> None:
        super().__init__(io.BytesIO(content))
        self.own = own

    def persistent_load(self, name: str) -> Any:
        return self.own[name]


def _models(message: bytes, device: torch.device, stack: ExitStack) -> tuple[nn.Module, nn.Module]:
    """Make the model again, and what attacks ask; it is lent out for as long as the stack lasts."""
    source, expected, x = pickle.loads(message)
    try:
        rebuild: Callable[[], nn.Module] = pickle.loads(source)
        model = rebuild()
    except RobustkitError:
        raise
    # Of whatever kind a stranger's module raises.
    except Exception as error:
        raise BadValueError(
            f"the model cannot be made again in another process ({reason(error)}); evaluate it in"
            " one"
        ) from None
    if expected and hash_module(model) != expected:
        raise BadValueError("the model's file has changed since it was read; begin again")
    stack.enter_context(lent(model, device))
    return model, model if x is None else quickened(model, x.to(device))


def reason(error: Exception) -> str:
    """Give an error's kind and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def _heard(connection: Connection) -> bytes | None:
    try:
        return connection.recv_bytes()
    except EOFError:
        return None


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _unheard(line: str) -> None:
    pass
