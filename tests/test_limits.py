"""Evaluations that end before their last point, and go on from there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from eval_parts import (
    Impatient,
    Linear,
    Nearest,
    Several,
    Step,
    Watcher,
    digits,
    linear_images,
    points_of,
    run,
    verdicts,
)
from numpy.typing import NDArray
from typer.testing import CliRunner

from robustkit.analysis.statistics import rate
from robustkit.cli import app, options
from robustkit.engine import checks
from robustkit.engine.limits import LEAST, Limits
from robustkit.errors import BadValueError
from robustkit.records import EvalRecord, Stopped
from robustkit.report import collect, html, markdown, terminal
from robustkit.threat import ThreatModel

ATTACK = Several(names=("walk", "step"))
THREAT = ThreatModel("linf", 0.1)


def told(folder: Path, record: EvalRecord) -> dict[str, Any]:
    """Give all that an evaluation leaves, but for times."""
    found = record.model_dump(exclude={"provenance"})
    for part in found["parts"]:
        part.pop("seconds")
    return {**found, **verdicts(folder, record)}


def test_a_budget_stops_it_and_a_larger_one_goes_on(tmp_path: Path) -> None:
    model, test = digits()
    (whole,) = run(tmp_path / "whole", model, test, [ATTACK], THREAT)
    every = points_of(tmp_path / "whole", whole)
    passes = (every.forwards + every.backwards).sum()
    folder, n = tmp_path / "parts", []
    for budget in (passes / 4, passes / 2):
        watcher, limits = Watcher(), Limits(passes=budget)
        (record,) = run(folder, model, test, [ATTACK], THREAT, limits=limits, progress=watcher)
        points = points_of(folder, record)
        n.append(record.robust.n)
        assert record.hash == whole.hash
        assert record.stopped == Stopped(of=360, limit=budget, unit="passes")
        assert record.clean.n == record.robust.n == len(points.ids)
        for name, values in vars(points).items():
            assert np.array_equal(values, getattr(every, name)[: n[-1]], equal_nan=True), name
        spent = (points.forwards + points.backwards).sum()
        assert spent == sum(part.forwards + part.backwards for part in record.parts)
        assert 0.7 * budget < spent < 1.1 * budget
        assert sum(map(sum, record.confusion_adversarial)) == n[-1]
        assert f"{n[-1]} of 360 points: robust" in watcher.notes[-1]
    assert LEAST <= n[0] < n[1] < 360
    # The same again, or less, is there already; what was done for it is not done anew.
    watcher = Watcher()
    for limits in (Limits(passes=passes / 2), Limits(passes=passes / 3), Limits(precision=50)):
        (read,) = run(folder, model, test, [ATTACK], THREAT, limits=limits, progress=watcher)
        assert read == record
    assert not watcher.updates and "stopped already by as large a limit" in watcher.notes[0]
    watcher = Watcher()
    (ended,) = run(folder, model, test, [ATTACK], THREAT, progress=watcher, resume=True)
    assert "steps are done already" in watcher.notes[0]
    assert told(folder, ended) == told(tmp_path / "whole", whole)
    assert not list(folder.glob("eval/*.partial"))
    (read,) = run(folder, model, test, [ATTACK], THREAT, limits=Limits(passes=passes / 4))
    assert read == ended


def test_a_precise_interval_stops_it(tmp_path: Path) -> None:
    model, test = digits()
    watcher, limits = Watcher(), Limits(precision=20)
    (record,) = run(tmp_path, model, test, [Step()], THREAT, limits=limits, progress=watcher)
    assert record.stopped == Stopped(of=360, limit=20, unit="points")
    assert 100 * (record.robust.high - record.robust.low) < 20
    before = int(watcher.notes[-2].split()[1])
    robust = points_of(tmp_path, record).robust
    earlier = rate(int(robust[:before].sum()), before)
    assert 100 * (earlier.high - earlier.low) >= 20
    (more,) = run(tmp_path, model, test, [Step()], THREAT, limits=Limits(precision=15))
    assert record.robust.n < more.robust.n < 360
    (whole,) = run(tmp_path, model, test, [Step()], THREAT, limits=Limits(precision=1))
    assert (whole.robust.n, whole.stopped) == (360, None)


def test_killed_under_limits_it_goes_on(tmp_path: Path) -> None:
    model, test = digits()
    limits = Limits(precision=15)
    (whole,) = run(tmp_path / "whole", model, test, [ATTACK], THREAT, limits=limits)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model, test, [ATTACK], THREAT, limits=limits, progress=Impatient(11))
    (resumed,) = run(tmp_path, model, test, [ATTACK], THREAT, limits=limits, resume=True)
    assert told(tmp_path, resumed) == told(tmp_path / "whole", whole)


def test_a_budget_too_small_for_any_point_keeps_what_is_done(tmp_path: Path) -> None:
    model, test = digits()
    for _ in range(2):
        with pytest.raises(BadValueError, match=r"'several': the budget ended before the first 16"):
            limits = Limits(seconds=1e-9)
            run(tmp_path, model, test, [ATTACK], THREAT, limits=limits, resume=True)
        assert len(list(tmp_path.glob("eval/*.partial/block*"))) == 1
        assert not list(tmp_path.glob("eval/*.json"))


def test_what_gives_no_fair_number_is_refused(tmp_path: Path) -> None:
    model, images = Linear(), linear_images(Linear())
    with pytest.raises(BadValueError, match="no random order"):
        run(tmp_path, model, images, [Step()], THREAT, ids=[1, 2], limits=Limits(passes=9))
    with pytest.raises(BadValueError, match="precision is of robust accuracy"):
        endless, limits = ThreatModel("linf", "inf"), Limits(precision=9)
        run(tmp_path, model, images, [Nearest()], endless, limits=limits)
    for bad in ({"seconds": 0.0}, {"precision": float("nan")}, {"seconds": 1.0, "passes": 1.0}):
        with pytest.raises(BadValueError):
            Limits(**bad)
    (record,) = run(tmp_path, model, images, [Nearest()], endless, limits=Limits(passes=60))
    assert record.stopped and record.robust.n < 200


class Apart(Several):
    """Measures each part by itself."""

    name = "apart"
    separate: ClassVar[bool] = True


def test_parts_measured_apart_are_of_the_same_points(tmp_path: Path) -> None:
    model, images = Linear(), linear_images(Linear())
    attack = Apart(names=("walk", "step"))
    threat = ThreatModel("linf", 0.004)
    (few,) = run(tmp_path, model, images, [attack], threat, limits=Limits(passes=400))
    (same,) = run(tmp_path, model, images, [attack], threat, limit=few.robust.n)
    assert 0 < few.robust.n < 200 and few.stopped
    for one, other in zip(few.parts, same.parts, strict=True):
        assert one.model_copy(update={"seconds": other.seconds}) == other
    with pytest.raises(BadValueError, match="'apart' has one for each part"):
        run(tmp_path, model, images, [attack], threat, limits=Limits(precision=9))


def test_attacks_stopped_at_different_points_are_not_compared(tmp_path: Path) -> None:
    model, images = Linear(), linear_images(Linear())
    threats = [ThreatModel("linf", eps) for eps in (0.004, 0.005)]
    one, two = run(tmp_path, model, images, [Step()], *threats)
    fewer = one.model_copy(update={"robust": rate(0, 50)})
    assert any(checks.across([one.model_copy(update={"robust": rate(0, 200)}), two]).values())
    assert not any(checks.across([fewer, two]).values())


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("", Limits()),
        ("90s", Limits(seconds=90)),
        ("1.5m", Limits(seconds=90)),
        ("2h", Limits(seconds=7200)),
        ("200000", Limits(passes=200000)),
    ],
)
def test_budgets_are_read(text: str, limits: Limits) -> None:
    assert options.limits(text, None) == limits


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        *((["--budget", bad], f"--budget '{bad}'") for bad in ("soon", "0", "0s", "-5", "10x")),
        (["--budget", "inf"], "as 90s, 10m or 2h, nor passes, as 200000"),
        (["--precision", "0"], "--precision 0 is no width"),
        (["--precision", "nan"], "--precision nan"),
        (["--precision", "100"], "--precision 100"),
        (["--budget", "9s", "--from", "set.npz"], "--from shows all of a set"),
    ],
)
def test_a_wrong_limit_is_one_line(flags: Sequence[str], said: str, tmp_path: Path) -> None:
    command = ["eval", "zoo:digits-policy-gradient", "--out", str(tmp_path), *flags]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.strip().splitlines()
    assert said in line


def test_reports_say_that_it_was_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", "zoo:digits-policy-gradient", "--attack", "fgsm", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*command, "--precision", "25", "--device", "cpu"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "of 360 test points, stopped by an interval below 25 points" in " ".join(
        result.stdout.split()
    )
    runs = collect([tmp_path])
    (evaluation,) = runs[0].evaluations
    n = evaluation.record.robust.n
    assert not runs[0].unfinished
    terminal.show(runs)
    for text in (capsys.readouterr().out, markdown.render(runs), html.render(runs)):
        assert f"{n} of 360" in text
    assert f"{360 - n} were not attacked" in html.render(runs)


# ---- what stopping does to the interval ----


def stub(robust: NDArray[np.bool_], passes: NDArray[np.float64]) -> Any:
    """Stand for a tally of points whose verdicts and costs are known."""
    return SimpleNamespace(
        ids=robust,
        forwards=passes,
        backwards=np.zeros(1),
        rate=lambda n: rate(int(robust[:n].sum()), n),
    )


def ends(limits: Limits, robust: NDArray[np.bool_], costs: NDArray[np.float64]) -> int:
    """Give how many points are through where the limits end it."""
    done = 0
    while room := limits.room(stub(robust, costs[:done]), done):
        done += room
    return done


def test_blocks_grow_by_half_and_fit_what_is_left() -> None:
    """Each point costs 100 passes, so that what a budget leaves room for is known."""
    robust, costs = np.ones(1000, dtype=bool), np.full(1000, 100.0)

    def room(limits: Limits, done: int) -> int:
        return limits.room(stub(robust, costs[:done]), done)

    ample = Limits(passes=1e6)
    assert [room(ample, done) for done in (0, 20, 100, 500, 1000)] == [16, 16, 50, 250, 0]
    assert room(ample, 990) == 10  # fewer than a block are left, and all of them fit
    assert room(Limits(passes=14_000), 100) == 40
    assert room(Limits(passes=100 * (100 + LEAST)), 100) == LEAST
    assert room(Limits(passes=100 * (100 + LEAST - 1)), 100) == 0
    assert room(Limits(passes=9_000), 100) == 0


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.5, 0.8, 0.98])
@pytest.mark.parametrize("limits", [Limits(precision=10), Limits(passes=400_000)], ids=str)
def test_intervals_cover_as_often_as_they_say(share: float, limits: Limits) -> None:
    """Of points so robust, where robust ones cost twenty times as much; about 95 of 100 cover."""
    rng, covered, found = np.random.default_rng(7), [], []
    for _ in range(1000):
        robust = rng.random(4000) < share
        n = ends(limits, robust, np.where(robust, 7000.0, 350.0))
        interval = rate(int(robust[:n].sum()), n)
        covered.append(interval.low <= share <= interval.high)
        found.append(interval.value)
    assert np.mean(covered) >= 0.93
    assert abs(np.mean(found) - share) < 0.02
    print(limits, share, np.mean(covered), np.mean(found) - share)
