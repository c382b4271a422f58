"""Evaluation in several processes: the same record as in one, and nobody is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_parts import (
    KILLED,
    SMALL_BLOCK,
    Hungry,
    Impatient,
    Linear,
    Noisy,
    Raises,
    Several,
    Step,
    Walk,
    Watcher,
    WrongShape,
    digits,
    linear_images,
    run,
    verdicts,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from robustkit.arrays import Gallery
from robustkit.cli import app
from robustkit.engine import blocks, server, workers
from robustkit.engine.craft import craft
from robustkit.engine.workers import share
from robustkit.errors import BadValueError, BrokenPluginError, RobustkitError
from robustkit.records import EvalRecord, RunFolder
from robustkit.threat import ThreatModel

LINF = ThreatModel("linf", 0.004)


@pytest.fixture(autouse=True)
def _forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start quickly; how they start in earnest, the command's own tests show."""
    monkeypatch.setattr(server, "START", "fork")


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def told(folder: Path, record: EvalRecord) -> dict[str, Any]:
    """Give all that an evaluation leaves, but for times and places."""
    found = record.model_dump(exclude={"provenance"})
    for part in found["parts"]:
        part.pop("seconds")
    gallery = Gallery.read(RunFolder(folder).gallery(record.stem))
    pictures = {name: np.nan_to_num(array).tolist() for name, array in vars(gallery).items()}
    return {**found, **verdicts(folder, record), "gallery": pictures}


def test_two_processes_leave_what_one_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[torch.device] = []
    start = workers._Worker.start
    monkeypatch.setattr(workers._Worker, "start", lambda d: (started.append(d), start(d))[1])
    model, test = digits()
    attacks = [Several(names=("walk", "step")), Step()]
    threats = [ThreatModel("linf", eps) for eps in (0.05, 0.1)]
    tables = []
    for processes, batch_size in [(1, 64), (1, 500), (2, 7), (2, 500)]:
        folder, watcher = tmp_path / f"{processes}-{batch_size}", Watcher()
        options: dict[str, Any] = {"processes": processes, "batch_size": batch_size, "limit": 150}
        records = run(folder, model, test, attacks, *threats, progress=watcher, **options)
        assert {r.provenance.processes for r in records} == {processes}
        assert len(started) == (processes if processes > 1 else 0)
        started.clear()
        done = [update[2] for update in watcher.updates if update[0] == "several"]
        assert done[: len(done) // 2] == sorted(done[: len(done) // 2])
        assert watcher.updates[-1][2:4] == (150, 150)
        tables.append([told(folder, record) for record in records])
    assert 0 < sum(tables[0][0]["robust"]) < 140
    assert tables[0] == tables[1] == tables[2] == tables[3]


def test_a_set_is_made_alike(tmp_path: Path) -> None:
    model, test = digits()
    sets = [
        craft(
            model,
            test,
            Walk(),
            ThreatModel("linf", 0.1),
            out=tmp_path / f"{processes}.npz",
            model_name="model",
            model_hash="",
            data={},
            limit=60,
            device="cpu",
            processes=processes,
        )
        for processes in (1, 2)
    ]
    assert sets[0].digest == sets[1].digest
    assert sets[1].record and sets[1].record.provenance.processes == 2


def test_a_randomised_model_is_judged_alike(tmp_path: Path) -> None:
    tables = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        options: dict[str, Any] = {"processes": processes, "batch_size": 40}
        (record,) = run(folder, Noisy(), linear_images(Linear()), [Step()], LINF, **options)
        assert record.judged_by == 10
        tables.append(told(folder, record))
    assert tables[0] == tables[1]


def test_failures_are_told_as_by_one_process(tmp_path: Path) -> None:
    model, images = Linear(), linear_images(Linear())
    notes = []
    for processes in (1, 2):
        watcher, folder = Watcher(), tmp_path / str(processes)
        attacks = [Raises(), WrongShape(), Hungry(), Step()]
        with pytest.raises(BrokenPluginError) as raised:
            run(folder, model, images, attacks, LINF, progress=watcher, processes=processes)
        assert str(raised.value) == "attack 'raises' failed: ZeroDivisionError: no such luck"
        assert [r.attack["name"] for r, _ in RunFolder(folder).results()] == ["hungry", "step"]
        notes.append([note.partition(" for images")[0] for note in watcher.notes])
    # Of a smaller share of the points, less was wanted.
    assert notes[0][-1] == notes[1][-1] == "memory ran out; going on with batches of 16"
    proposed = ["attack 'wrong-shape' proposed (190, 1, 2, 4)"]
    assert notes[0][:2] == [str(raised.value), *proposed]
    assert notes[1][0] == str(raised.value)
    assert notes[1][1].startswith("attack 'wrong-shape' proposed (")


def test_what_cannot_travel_is_said_in_a_line(tmp_path: Path) -> None:
    class Here(Linear):
        pass

    class Local(Step):
        pass

    images = linear_images(Linear())
    script = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    for model in (Here(), script):
        with pytest.raises(BadValueError, match=r"the model cannot go to other processes \("):
            run(tmp_path, model, images, [Step()], LINF, processes=2)
    with pytest.raises(BrokenPluginError, match=r"attack 'step' cannot go to other processes \("):
        run(tmp_path, Linear(), images, [Local()], LINF, processes=2)
    with pytest.raises(BadValueError, match="cannot work in 0 processes"):
        run(tmp_path, Linear(), images, [Step()], LINF, processes=0)


def test_the_model_is_made_again_and_must_be_the_same(tmp_path: Path) -> None:
    model, images = Linear(), linear_images(Linear())
    with pytest.raises(BadValueError, match="file has changed"):
        run(tmp_path, model, images, [Step()], LINF, processes=2, rebuild=partial(Linear, 1))
    with pytest.raises(BadValueError, match="cannot be made again in another process .*'pixel'"):
        rebuild = partial(Linear, pixel=3)
        run(tmp_path, model, images, [Step()], LINF, processes=2, rebuild=rebuild)
    rebuild = partial(Linear)
    (record,) = run(tmp_path, model, images, [Step()], LINF, processes=2, rebuild=rebuild)
    assert record.robust.count > 0


@given(st.integers(1, 600), st.integers(2, 16), st.integers(1, 300))
def test_shares_are_even_and_within_a_batch(n: int, processes: int, batch_size: int) -> None:
    size = share(n, processes, batch_size)
    assert 1 <= size <= batch_size
    assert size == batch_size or -(-n // size) <= workers.TURNS * processes
    assert size >= min(workers.FEWEST, -(-n // processes), batch_size)


# ---- killed and interrupted ----


def test_a_killed_worker_ends_the_run_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL_BLOCK)
    model, test = digits()
    marker = tmp_path / "marker"
    attack = Several(names=("walk", "dies-once", "step"), marker=str(marker))
    threat = ThreatModel("linf", 0.1)
    folder = tmp_path / "killed"
    with pytest.raises(RobustkitError, match=r"ended \(killed by signal 9\).*--resume"):
        run(folder, model, test, [attack], threat, processes=2)
    assert marker.exists()
    assert len(list(folder.glob("eval/*.partial/block*"))) == 1
    (resumed,) = run(folder, model, test, [attack], threat, processes=2, resume=True)
    (whole,) = run(tmp_path / "whole", model, test, [attack], threat)
    assert told(folder, resumed) == told(tmp_path / "whole", whole)


def test_ctrl_c_ends_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL_BLOCK)
    model, test = digits()
    attack, threat = KILLED
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model, test, [attack], threat, progress=Impatient(14), processes=2)
    assert multiprocessing.active_children() == []
    assert len(list(tmp_path.glob("eval/*.partial/block*"))) >= 2


COMMAND = [
    "eval",
    "zoo:digits-policy-gradient",
    "--attack",
    "autoattack",
    "--device",
    "cpu",
    "--processes",
    "2",
]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_command(how: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C reaches the whole group, kill -9 the first process alone; all are gone after both."""
    command = [sys.executable, "-m", "robustkit", *COMMAND, "--out", str(tmp_path)]
    begun = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs, such as these tests may be, hand on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert begun.stderr is not None
    assert "apgd-ce" in begun.stderr.readline()
    if how == signal.SIGINT:
        os.killpg(begun.pid, how)
    else:
        begun.kill()
    said = begun.stderr.read()
    assert begun.wait() == (130 if how == signal.SIGINT else -signal.SIGKILL)
    if how == signal.SIGINT:
        assert said.splitlines()[-1].startswith("robustkit: interrupted; what is done is kept")
    assert "Traceback" not in said
    for _ in range(600):
        try:
            os.killpg(begun.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(begun.pid, signal.SIGKILL)
    raise AssertionError("a process was left")


def test_ctrl_c_is_heard_while_processes_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server imports torch first, for seconds; only itself begins deaf."""
    heard: list[Any] = []

    def start(device: torch.device) -> None:
        heard.append(signal.getsignal(signal.SIGINT))
        raise KeyboardInterrupt

    def serve() -> None:
        heard.append(signal.getsignal(signal.SIGINT))

    monkeypatch.setattr(server, "START", server.SERVER)
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", serve)
    monkeypatch.setattr(workers._Worker, "start", start)
    before = signal.getsignal(signal.SIGINT)
    two = [torch.device("cpu")] * 2
    with (
        pytest.raises(KeyboardInterrupt),
        workers.Workers(two, Linear(), None, torch.zeros(1)) as w,
    ):
        w._start(quick=False)
    assert heard == [signal.SIG_IGN, before]


@pytest.mark.parametrize("command", ["eval", "attack"])
def test_a_command_starts_the_server_first_where_it_needs_one(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr(server, "ready", lambda: begun.append(command))
    for processes in ("1", "2"):
        CliRunner().invoke(app, [command, "nowhere.pt", "--processes", processes])
        assert begun == [command] * (int(processes) - 1)


def test_the_server_is_asked_for_without_torch() -> None:
    code = "import sys, robustkit.engine.server; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
