"""The common corruptions: each apart, on images of any size, and told as a mean and not the worst."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from robustkit_plugins.corruptions.attacks import ALL, Corruption
from typer.testing import CliRunner

from robustkit.catalog import build
from robustkit.cli import app
from robustkit.engine.rng import PointRng
from robustkit.errors import BadValueError
from robustkit.records import RunFolder
from robustkit.report import accuracies, collect, html, markdown, summary, terminal
from robustkit.threat import ThreatModel

pytest.importorskip("imagecorruptions")
NONE = ThreatModel("none", 1.0)


def corrupt(x: torch.Tensor, which: str, severity: int = 3, seed: int = 0) -> torch.Tensor:
    attack = Corruption(which=which, severity=severity)  # type: ignore[arg-type]
    rng = PointRng(seed, attack.name, torch.arange(len(x)))
    return attack.perturb(None, x, torch.zeros(len(x)).long(), NONE, rng)  # type: ignore[arg-type]


def images(channels: int, side: int) -> torch.Tensor:
    """Give smooth images, as photographs are."""
    coarse = torch.rand((4, channels, 5, 5), generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("which", ALL)
def test_every_corruption_works_on_small_grey_and_larger_colour_images(which: str) -> None:
    for channels, side in ((1, 8), (1, 28), (3, 32)):
        x = images(channels, side)
        made = corrupt(x, which)
        assert made.shape == x.shape and made.dtype == x.dtype
        assert ((made * 255).round() / 255 - made).abs().max() < 1e-6
        assert not torch.allclose(made, x, atol=0.01)


def test_stronger_is_farther() -> None:
    x = images(3, 32)
    for which in ("gaussian-noise", "defocus-blur", "brightness", "contrast"):
        far = [float((corrupt(x, which, s) - x).abs().mean()) for s in (1, 3, 5)]
        assert far == sorted(far) and far[0] < far[2]


def test_noise_is_of_the_strength_of_the_paper() -> None:
    x = torch.full((4, 1, 32, 32), 0.5)
    assert corrupt(x, "gaussian-noise", 1).std().item() == pytest.approx(0.08, rel=0.05)
    assert corrupt(x, "contrast", 5).sub(x).abs().max() < 0.01


def test_a_point_has_its_own_draw_whatever_else_is_drawn() -> None:
    x = images(1, 28)[:1].expand(3, -1, -1, -1)
    for which in ("shot-noise", "impulse-noise", "glass-blur", "snow", "elastic-transform"):
        np.random.seed(1)
        first = corrupt(x, which)
        np.random.seed(2)
        before = np.random.get_state()[1].tolist()
        second = corrupt(x, which)
        assert np.random.get_state()[1].tolist() == before
        assert torch.equal(first, second)
        assert not torch.equal(first[0], first[1])
        assert not torch.equal(first, corrupt(x, which, seed=1))


def test_an_absent_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(BadValueError, match=r"pip install 'robustkit\[corruptions\]'") as refused:
        corrupt(images(1, 8), "snow")
    assert "\n" not in str(refused.value)


def test_other_channels_are_refused_in_a_line() -> None:
    with pytest.raises(BadValueError, match="images of 2 channels cannot be corrupted"):
        corrupt(torch.rand(1, 2, 8, 8), "snow")


def test_eval_tells_each_corruption_and_the_mean(tmp_path: Path) -> None:
    out = tmp_path / "run"
    some = ["contrast", "brightness", "gaussian-noise"]
    chosen = ["--set", f"corruptions.which={some}", "--set", "corruptions.severities=[1,5]"]
    what = ["eval", "zoo:digits-policy-gradient", "--attack", "corruptions", *chosen]
    done = CliRunner().invoke(app, [*what, "--limit", "60", "--out", str(out)])
    assert done.exit_code == 0, done.output
    ((record, points),) = RunFolder(out).results()
    clean, n = record.clean.count, record.clean.n
    assert [part.attacked for part in record.parts] == [clean] * 6
    left = [clean - part.broken for part in record.parts]
    assert max(left) > record.robust.count  # each apart leaves more than all of them
    assert record.robust.count == int(points.robust.sum()) <= min(left)
    mean = f"mean {100 * sum(left) / len(left) / n:.1f} % of 6"
    (run,) = collect([out])
    assert summary.verdict(run).startswith(mean.capitalize())
    (row,) = accuracies.rows(run)
    assert (row.robust, row.instead) == (None, mean)
    (table,) = accuracies.from_parts(run)
    assert [name for name, _ in table.attacks] == ["severity 1", "severity 5"]
    assert [name for name, _ in table.lines] == some
    assert [rate.count for _, cells in table.lines for rate in cells if rate] == left
    shown = io.StringIO()
    terminal.show([run], Console(file=shown, width=80))
    for text in (shown.getvalue(), markdown.render([run]), html.render([run])):
        assert mean.partition("mean ")[2] in text
        assert "gaussian-noise" in text and "severity 5" in text
        assert "worst case" not in text


def test_all_fifteen_at_five_strengths() -> None:
    parts = build("attack", "corruptions").parts(10, NONE)
    assert len(parts) == 75
    assert len({str(part.dump()) for part in parts}) == 75
