"""The server that the processes of an evaluation are forked from: it imports torch once for all."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver

SERVER = "forkserver"
START = SERVER if SERVER in multiprocessing.get_all_start_methods() else "spawn"
"""How processes start: forked ones would inherit threads and CUDA's state, and spawned ones import
torch each, for seconds."""
IMPORTED = "robustkit.engine.worker"


def ready() -> None:
    """Start the server where there is none yet, without waiting: it imports while others work."""
    if START != SERVER:
        return
    with left_alone():
        multiprocessing.get_context(SERVER).set_forkserver_preload([IMPORTED])
        forkserver.ensure_running()


@contextmanager
def left_alone() -> Iterator[None]:
    """Keep Ctrl-C from processes that start here: it reaches all of a terminal's, and this ends
    the others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
