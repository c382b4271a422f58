"""Attacks of other libraries: every one of them keeps the engine's promises, in a few calls."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from bridges import QUICK
from torch import Tensor, nn
from typer.testing import CliRunner

import robustkit as rk
from robustkit.attacks.foreign import Asked
from robustkit.catalog import build, installed
from robustkit.cli import app
from robustkit.engine.rng import PointRng
from robustkit.engine.victim import CountingVictim, frozen
from robustkit.errors import BadValueError, UnknownNameError
from robustkit.testing.bench import (
    RADIUS,
    SIZES,
    ids_of,
    left_alone,
    linear_model,
    linear_points,
    no_global_random_numbers,
)
from robustkit.threat import ThreatModel

NAMES = [e.name for e in installed().of_kind("attack") if ":" in e.name]
PAGE = Path(__file__).parents[1] / "docs" / "bridges.md"
CALLS = 30
"""After so many calls a test's victim is done with a point."""


class Watched(CountingVictim):
    """A victim that is done with each point after some calls that held it."""

    def done(self, logits: Tensor, y: Tensor) -> Tensor:
        over = super().done(logits, y)
        return over | bool(self.forwards[self.rows].max() >= CALLS)

    def __call__(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        assert rows is not None
        assert len(rows.unique()) == 1
        self.rows = rows
        return super().__call__(x, rows)


def propose(
    attack: rk.Attack, model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, ids: Tensor
) -> tuple[Tensor, Watched]:
    victim = Watched(model, len(x), x.device, drop=True)
    with frozen(model):
        return attack.perturb(victim, x, y, threat, PointRng(0, attack.name, ids)), victim


@pytest.mark.parametrize("name", NAMES)
def test_every_attack_keeps_the_engines_promises(
    name: str, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    attack = build("attack", {"name": name, **QUICK.get(name, {})})
    x, y = (part[:2] for part in linear_points())
    x_before, model, ids, asked = x.clone(), linear_model(), ids_of(2), 0

    def count(_: nn.Module, images: tuple[Tensor], __: Tensor) -> None:
        nonlocal asked
        asked += 1
        assert images[0].dtype == torch.float32

    model.register_forward_hook(count)
    norm = attack.norms[0]
    threat = ThreatModel(norm, 2 * RADIUS.get(norm, SIZES["none"]))
    with warnings.catch_warnings(), left_alone(model), no_global_random_numbers():
        warnings.simplefilter("error")
        x_adv, victim = propose(attack, model, x, y, threat, ids)
        flipped, _ = propose(attack, model, x.flip(0), y.flip(0), threat, ids.flip(0))
    assert torch.equal(flipped.flip(0), x_adv), "a point's proposal depends on the others"
    assert torch.equal(x, x_before)
    assert x_adv.dtype == x.dtype
    assert x_adv.shape == x.shape
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    if norm != "none":
        assert (threat.size(x_adv - x) <= threat.eps + threat.tolerance).all()
    assert asked >= 2
    assert victim.forwards.min() >= 1
    assert not victim.spread
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir()), "it leaves files behind"


def test_the_page_names_every_attack_and_every_class_left_out() -> None:
    page = PAGE.read_text("utf-8")
    for name in NAMES:
        assert f"| `{name}` |" in page, f"{name} is not there: run benchmarks/bridges.py"
    assert page.count("| `") == len(NAMES)
    for library in ("art", "foolbox"):
        for name in importlib.import_module(f"robustkit_plugins.{library}_bridge.table").LEFT_OUT:
            assert f"| {library}: {name} |" in page


def test_every_class_of_the_toolbox_is_here_or_left_out() -> None:
    evasion = importlib.import_module("art.attacks.evasion")
    table = importlib.import_module("robustkit_plugins.art_bridge.table")
    theirs = {n for n, c in vars(evasion).items() if isinstance(c, type)}
    known = {row.original for row in table.TABLE.values()} | table.LEFT_OUT.keys()
    assert theirs <= known
    assert known - theirs <= {"BrendelBethgeAttack"}


def test_every_class_of_foolbox_is_here_or_left_out() -> None:
    attacks = importlib.import_module("foolbox.attacks")
    table = importlib.import_module("robustkit_plugins.foolbox_bridge.table")
    theirs = {c.__name__ for c in vars(attacks).values() if isinstance(c, type)} - {"Attack"}
    here = {
        getattr(attacks, c).__name__ for row in table.TABLE.values() for c in row.classes.values()
    }
    assert theirs == here | table.LEFT_OUT.keys()


class Steps(rk.Foreign):
    """Walks towards the next class, in steps of a share of the known radius, drawing numbers."""

    name = "other:steps"
    norms = ("linf", "none")
    minimal = True

    def find(self, asked: rk.Asked) -> Tensor:
        torch.rand(1)
        slope = asked.x.detach().clone().requires_grad_()
        logits = asked(slope)
        runner = logits.topk(2, 1).indices[:, 1]
        gain = logits.gather(1, runner[:, None]) - logits.gather(1, asked.label[:, None])
        (gradient,) = torch.autograd.grad(gain.sum(), slope)
        for share in (2.0, 1.5, 1.2, 1.05, 0.9):
            asked(asked.x + share * RADIUS["linf"] * gradient.sign())
        return torch.zeros_like(asked.x)


def search(attack: rk.Attack, threat: ThreatModel) -> tuple[Tensor, CountingVictim]:
    x, y = linear_points()
    model = linear_model()
    victim = CountingVictim(model, len(x), x.device, drop=threat.eps < float("inf"))
    with frozen(model):
        found = attack.perturb(victim, x, y, threat, PointRng(0, attack.name, ids_of(len(x))))
    return found, victim


def test_the_smallest_image_that_was_shown_is_proposed() -> None:
    x, _ = linear_points()
    found, victim = search(Steps(), ThreatModel("linf", float("inf")))
    assert (found - x).abs().flatten(1).amax(1).tolist() == pytest.approx(
        [1.05 * RADIUS["linf"]] * len(x), rel=1e-4
    )
    assert victim.forwards.tolist() == [8.0] * len(x)


def test_what_is_larger_than_eps_is_not_proposed_and_the_search_ends_where_it_is_not() -> None:
    x, _ = linear_points()
    found, _ = search(Steps(), ThreatModel("linf", 1.01 * RADIUS["linf"]))
    assert torch.equal(found, x)
    found, victim = search(Steps(), ThreatModel("linf", 1.6 * RADIUS["linf"]))
    sizes = (found - x).abs().flatten(1).amax(1)
    assert sizes.tolist() == pytest.approx([1.5 * RADIUS["linf"]] * len(x), rel=1e-4)
    assert victim.forwards.tolist() == [4.0] * len(x)


def test_a_point_that_runs_out_of_time_keeps_the_best_so_far_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("robustkit.attacks.foreign.time.monotonic", lambda: next(clock))
    x, _ = linear_points()
    found, victim = search(Steps(seconds=3.5), ThreatModel("linf", float("inf")))
    sizes = (found - x).abs().flatten(1).amax(1)
    assert sizes.tolist() == pytest.approx([1.5 * RADIUS["linf"]] * len(x), rel=1e-4)
    assert victim.stopped.all()
    _, victim = search(Steps(seconds=100), ThreatModel("linf", float("inf")))
    assert not victim.stopped.any()


def test_images_outside_the_box_do_not_count() -> None:
    x, y = linear_points()
    victim = CountingVictim(linear_model(), 1, x.device, drop=False)
    asked = Asked(victim, x[:1], y[:1], torch.tensor([0]), ThreatModel("none", 1.0))
    asked(-5 * x[:1])
    assert asked.logits is None
    asked(torch.ones_like(x[:1]) - x[:1])
    assert asked.logits is not None


def test_a_target_is_what_counts() -> None:
    attack = build("attack", {"name": "foolbox:pgd", "steps": 5, "rel_stepsize": 0.5})
    x, y = linear_points()
    target = (y + 1) % 4
    model = linear_model()
    with frozen(model):
        victim = CountingVictim(model, len(x), x.device, drop=True)
        rng = PointRng(0, attack.name, ids_of(len(x)))
        found = attack.perturb(victim, x, y, ThreatModel("linf", 0.2), rng, target)
    assert torch.equal(model(found).argmax(1), target)
    with pytest.raises(BadValueError, match="'art:deepfool' takes no target"):
        build("attack", "art:deepfool").perturb(victim, x, y, ThreatModel("l2", 1), rng, target)


def test_options_are_the_librarys_and_kept() -> None:
    attack = build("attack", {"name": "art:hopskipjump", "max_iter": 20})
    assert attack.dump()["max_iter"] == 20
    assert attack.dump()["init_eval"] == 100
    assert "Maximum" not in str(type(attack).model_fields["max_iter"].description)
    assert "eps" not in type(build("attack", "foolbox:pgd")).model_fields
    with pytest.raises(UnknownNameError, match="did you mean 'max_iter'"):
        build("attack", {"name": "art:hopskipjump", "max_itr": 20})
    with pytest.raises(
        BadValueError, match="the toolbox refuses the options of attack 'art:simba'"
    ):
        build("attack", {"name": "art:simba", "attack": "wave"})


def test_the_command_line_takes_names_with_a_colon(tmp_path: Path) -> None:
    command = ["eval", "zoo:digits-policy-gradient", "--attack", "art:deepfool", "--limit", "3"]
    more = ["--norm", "l2", "--eps", "inf", "--set", "art:deepfool.max_iter=2", "--out"]
    result = CliRunner().invoke(app, [*command, *more, str(tmp_path)])
    assert result.exit_code == 0, result.output
    (record,) = (tmp_path / "eval").glob("*.json")
    assert record.name.startswith("art-deepfool-l2-inf-")
    assert '"max_iter": 2' in record.read_text()
    shown = CliRunner().invoke(app, ["plugins", "show", "art:deepfool"]).output
    assert "max_iter = 100  (int, >= 0)" in shown
    assert "arxiv.org/abs/1511.04599" in shown


def test_without_foolbox_its_attacks_say_what_to_install() -> None:
    script = (
        "import sys; sys.modules['foolbox'] = None\n"
        "from robustkit.cli import main\n"
        "sys.argv = ['robustkit', 'plugins', 'show', 'foolbox:pgd']; main()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert "pip install 'robustkit[foolbox]'" in line
