"""Evaluation as a whole: known answers, and the same verdicts however it is run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_parts import (
    KILLED,
    SMALL_BLOCK,
    Hungry,
    Idle,
    Impatient,
    Linear,
    Nearest,
    Noisy,
    NotANumber,
    Raises,
    Several,
    Step,
    Walk,
    Watcher,
    WrongShape,
    digits,
    linear_images,
    points_of,
    run,
    verdicts,
)
from torch import Tensor, nn

from robustkit.analysis.statistics import robust_at, worst_case
from robustkit.arrays import Gallery
from robustkit.attacks.pgd import PGD
from robustkit.data.images import ArrayImages
from robustkit.engine import attacking, blocks, victim
from robustkit.engine.blocks import order
from robustkit.engine.identity import hash_module
from robustkit.engine.verdict import CHUNK
from robustkit.errors import BadValueError, BrokenPluginError
from robustkit.records import RunFolder
from robustkit.threat import ThreatModel

LINF = ThreatModel("linf", 0.004)


def test_robust_accuracy_of_a_linear_model_is_known(tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    x = images.take(torch.arange(len(images))).float() / 255
    right = model(x).argmax(1) == images.labels
    for norm in ("linf", "l2"):
        radius = model.radius(x, norm)
        threat = ThreatModel(norm, float(radius.median()) + 1e-6)
        (record,) = run(tmp_path, model, images, [Step()], threat)
        expected = right & (radius > threat.eps)
        assert record.clean.count == right.sum() == 190
        assert record.robust.count == expected.sum()
        points = points_of(tmp_path, record)
        assert np.array_equal(points.robust, expected.numpy()[points.ids])
        assert record.parts[0].attacked == 190
        assert record.parts[0].broken == 190 - record.robust.count
        assert (record.parts[0].forwards, record.parts[0].backwards) == (190, 190)
        assert points.forwards.tolist() == right.numpy()[points.ids].astype(float).tolist()
        assert sorted(set(points.broken_by.tolist())) == [-2, -1, 0]


def test_confusions_count_what_broke_and_else_the_clean_prediction(tmp_path: Path) -> None:
    model = Linear()
    (record,) = run(tmp_path, model, linear_images(model), [Step()], LINF)
    points = points_of(tmp_path, record)
    clean, adversarial = np.array(record.confusion_clean), np.array(record.confusion_adversarial)
    assert clean.sum() == adversarial.sum() == 200
    assert np.trace(clean) == 190
    # Two classes: what is broken or wrong when clean is predicted as the other one.
    assert np.trace(adversarial) == record.robust.count
    falls = (points.labels == 0) & (points.adversarial_predictions == 1)
    assert adversarial[0, 1] == falls.sum() != adversarial[1, 0]
    assert np.array_equal(points.adversarial_predictions == points.labels, points.robust)


def test_no_flag_of_an_attack_counts(tmp_path: Path) -> None:
    model = Linear()
    (record,) = run(tmp_path, model, linear_images(model), [Idle()], LINF)
    assert record.robust.count == record.clean.count
    assert record.valid
    assert record.parts[0].spread
    assert record.parts[0].forwards == pytest.approx(1)


def test_later_parts_attack_what_earlier_ones_left(tmp_path: Path) -> None:
    model = Linear()
    attack = Several(names=("idle", "walk", "step", "idle"))
    (record,) = run(tmp_path, model, linear_images(model), [attack], LINF)
    (alone,) = run(tmp_path, model, linear_images(model), [Step()], LINF)
    attacked, broken = ([getattr(p, k) for p in record.parts] for k in ("attacked", "broken"))
    assert attacked == [190, 190, 190 - broken[1], 190 - sum(broken)]
    assert broken[1] > 0 and broken[2] > 0
    assert record.robust.count == alone.robust.count == 190 - sum(broken)
    assert np.bincount(points_of(tmp_path, record).broken_by + 2, minlength=6).tolist() == [
        10,
        record.robust.count,
        *broken,
    ]
    assert record.remarks == ("4 parts of 2 classes",)


@pytest.mark.parametrize("attack", [Step(factor=2), NotANumber()])
def test_a_broken_attack_is_named_and_its_points_have_no_verdict(
    attack: Step, tmp_path: Path
) -> None:
    model = Linear()
    (record,) = run(tmp_path, model, linear_images(model), [attack], LINF)
    points = points_of(tmp_path, record)
    rejected = int((points.broken_by == -3).sum())
    assert rejected == record.parts[0].rejected >= 95
    assert not points.robust[points.broken_by == -3].any()
    assert record.robust.count + record.parts[0].broken + rejected == 190
    assert not record.valid
    assert any(f"invalid: attack '{attack.name}' is broken" in w for w in record.warnings)


def test_a_sound_part_gives_the_verdict_that_a_broken_one_did_not(tmp_path: Path) -> None:
    model = Linear()
    attack = Several(names=("outside", "step"))
    (record,) = run(tmp_path, model, linear_images(model), [attack], LINF)
    points = points_of(tmp_path, record)
    assert [p.attacked for p in record.parts] == [190, 190]
    assert record.parts[1].broken > 0
    assert record.robust.count == 0
    assert set(points.broken_by.tolist()) == {-3, -2, 1}


@pytest.mark.parametrize("names", [("nearest", "nearer"), ("nearer", "nearest")])
def test_the_smallest_perturbation_gives_every_eps(names: tuple[str, ...], tmp_path: Path) -> None:
    model = Linear()
    images = linear_images(model)
    attack = Several(names=names)
    (record,) = run(tmp_path, model, images, [attack], ThreatModel("linf", "inf"))
    points = points_of(tmp_path, record)
    x = images.take(torch.from_numpy(points.ids)).float() / 255
    right = points.broken_by >= 0
    assert [p.attacked for p in record.parts] == [190, 190]
    assert record.robust.count == 0
    assert set(points.broken_by.tolist()) == {-2, names.index("nearer")}
    expected = model.radius(x, "linf").numpy()[right] * 1.001
    assert points.sizes[right] == pytest.approx(expected, rel=1e-2)
    for eps in (0.001, 0.004, 0.01):
        (direct,) = run(tmp_path, model, images, [Step()], ThreatModel("linf", eps))
        assert abs(robust_at(points, eps).count - direct.robust.count) <= 1


def test_several_attacks_and_sizes_each_have_their_record(tmp_path: Path) -> None:
    model = Linear()
    threats = [ThreatModel("linf", 0.002), ThreatModel("linf", 0.006), ThreatModel("l2", 0.01)]
    records = run(tmp_path, model, linear_images(model), [Step(), Walk()], *threats)
    assert [(r.threat.norm, r.threat.eps, r.attack["name"]) for r in records] == [
        (t.norm, t.eps, name) for t in threats for name in ("step", "walk")
    ]
    results = {r.stem: p for r, p in RunFolder(tmp_path).results()}
    assert sorted(results) == sorted(r.stem for r in records)
    both = worst_case([results[records[0].stem], results[records[1].stem]])
    assert both.count <= min(records[0].robust.count, records[1].robust.count)
    assert not list((tmp_path / "eval").glob("*.partial"))


@pytest.mark.parametrize("attack", [Walk(), Step()])
def test_verdicts_do_not_depend_on_the_batch_size(attack: Step, tmp_path: Path) -> None:
    model, test = digits()
    tables = []
    for size in (7, 64, 300):
        folder = tmp_path / str(size)
        (record,) = run(folder, model, test, [attack], ThreatModel("linf", 0.1), batch_size=size)
        table = verdicts(folder, record)
        for name in ("sizes", "margins"):
            table[name] = np.round(table[name], 4).tolist()
        tables.append(table)
    assert 0 < sum(tables[0]["robust"]) < 320
    assert tables[0] == tables[1] == tables[2]


def test_verdicts_do_not_depend_on_a_points_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, test = digits()
    (one,) = run(tmp_path / "one", model, test, [Walk()], ThreatModel("linf", 0.1))
    monkeypatch.setattr(blocks, "BLOCK", 50)
    (many,) = run(tmp_path / "many", model, test, [Walk()], ThreatModel("linf", 0.1))
    assert verdicts(tmp_path / "one", one) == verdicts(tmp_path / "many", many)


def test_a_larger_limit_extends_a_smaller_one(tmp_path: Path) -> None:
    model, test = digits()
    (few,) = run(tmp_path, model, test, [Walk()], LINF, limit=50)
    (more,) = run(tmp_path, model, test, [Walk()], LINF, limit=120)
    one, other = (verdicts(tmp_path, r) for r in (few, more))
    assert (few.limit, more.limit, few.robust.n) == (50, 120, 50)
    for name in ("ids", "broken_by", "adversarial_predictions"):
        assert other[name][:50] == one[name]
    (whole,) = run(tmp_path, model, test, [Walk()], LINF, limit=100_000)
    assert (whole.limit, whole.robust.n) == (None, 360)


def test_the_order_is_a_permutation_that_the_seed_picks() -> None:
    labels = torch.zeros(2000, dtype=torch.int64)
    labels[::4] = -1
    ids = order(labels, 0)
    assert sorted(ids.tolist()) == [i for i in range(2000) if i % 4]
    assert torch.equal(order(labels, 0, 77), ids[:77])
    assert not torch.equal(order(labels, 1), ids)
    with pytest.raises(BadValueError, match="limit 0"):
        order(labels, 0, 0)
    with pytest.raises(BadValueError, match="no point"):
        order(labels[::4], 0)


def test_the_model_comes_back_as_it_was(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.drop, self.model = nn.BatchNorm2d(1), nn.Dropout(), Linear()

        def forward(self, x: Tensor) -> Tensor:
            return self.model(self.drop(self.norm(x)))

    net = Net().train()
    net.drop.eval()
    net.model.b.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    run(tmp_path, net, linear_images(Linear()), [Step()], LINF)
    assert (net.training, net.norm.training, net.drop.training) == (True, True, False)
    assert (net.model.w.requires_grad, net.model.b.requires_grad) == (True, False)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.model.w.grad is None


def test_an_attack_that_fails_is_named_and_the_others_run(tmp_path: Path) -> None:
    model, watcher = Linear(), Watcher()
    attacks = [Raises(), Step()]
    with pytest.raises(BrokenPluginError) as raised:
        run(tmp_path, model, linear_images(model), attacks, LINF, progress=watcher)
    assert str(raised.value) == "attack 'raises' failed: ZeroDivisionError: no such luck"
    assert watcher.notes == [str(raised.value)]
    assert [r.attack["name"] for r, _ in RunFolder(tmp_path).results()] == ["step"]
    with pytest.raises(BrokenPluginError, match=r"'wrong-shape' proposed \(\d+, 1, 2, 4\)"):
        run(tmp_path, model, linear_images(model), [WrongShape()], LINF)


@pytest.mark.parametrize(
    ("attack", "threat", "options", "said"),
    [
        (Nearest(), ThreatModel("l1", 1), {}, "'nearest' does not work in norm 'l1'"),
        (Step(), ThreatModel("l2", "inf"), {}, "'step' needs a finite eps"),
        (Several(), ThreatModel("l2", "inf"), {}, "'idle' needs a finite eps"),
        (Step(), LINF, {"limit": 0}, "limit 0"),
        (Step(), LINF, {"batch_size": 0}, "batch size 0"),
        (Step(), LINF, {"device": "gpu"}, "device 'gpu'"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_attack(
    attack: Any, threat: ThreatModel, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    model = Linear()
    with pytest.raises(BadValueError, match=said) as raised:
        run(tmp_path, model, linear_images(model), [attack], threat, **options)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "eval").exists()


def test_class_counts_must_agree(tmp_path: Path) -> None:
    _, test = digits()
    with pytest.raises(BadValueError, match="fails on images of shape"):
        run(tmp_path, Linear(), test, [Step()], LINF)
    with pytest.raises(BadValueError, match="model has 2 classes and the data set 10"):
        run(tmp_path, Linear(pixels=64), test, [Step()], LINF)


def test_float_images_out_of_range_are_refused(tmp_path: Path) -> None:
    class Normalised(ArrayImages):
        def take(self, ids: Tensor) -> Tensor:
            return (super().take(ids) / 255 - 0.5) / 0.02

    source = linear_images(Linear())
    images = Normalised(source.take(torch.arange(200)).numpy(), source.labels.numpy(), ["a", "b"])
    with pytest.raises(BadValueError, match=r"images lie in \[-3\.\d+, 3\.\d+\]"):
        run(tmp_path, Linear(), images, [Step()], LINF)
    open_box = ThreatModel("linf", 0.1, float("-inf"), float("inf"))
    run(tmp_path, Linear(), images, [Step()], open_box)


def test_a_finished_evaluation_is_read_unless_fresh(tmp_path: Path) -> None:
    model, images, watcher = Linear(), linear_images(Linear()), Watcher()
    (first,) = run(tmp_path, model, images, [Step()], LINF)
    (again,) = run(tmp_path, model, images, [Step()], LINF, progress=watcher)
    assert again == first
    assert watcher.updates == []
    assert "is finished already" in watcher.notes[0]
    watcher = Watcher()
    run(tmp_path, model, images, [Step()], LINF, progress=watcher, fresh=True)
    assert watcher.updates
    for change in ({"seed": 1}, {"limit": 10}):
        (other,) = run(tmp_path, model, images, [Step()], LINF, **change)
        assert other.hash != first.hash
    (other,) = run(tmp_path, Linear(seed=1), images, [Step()], LINF)
    assert other.hash != first.hash


def test_a_damaged_result_is_made_again(tmp_path: Path) -> None:
    model, images = Linear(), linear_images(Linear())
    (first,) = run(tmp_path, model, images, [Step()], LINF)
    for ending in (".json", ".npz"):
        file = tmp_path / "eval" / (first.stem + ending)
        file.write_bytes(file.read_bytes()[:100])
        (again,) = run(tmp_path, model, images, [Step()], LINF)
        assert again.robust == first.robust
        points_of(tmp_path, again)


def test_progress_ends_whole_and_the_bound_only_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL_BLOCK)
    model, watcher = Linear(), Watcher()
    attack = Several(names=("walk", "step"))
    images = linear_images(model)
    (record,) = run(tmp_path, model, images, [attack], LINF, progress=watcher, batch_size=16)
    done, bounds = [u[2] for u in watcher.updates], [u[4] for u in watcher.updates]
    assert done == sorted(done) and done[-1] == watcher.updates[0][3] == 400
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == record.robust.value
    assert {u[:2] for u in watcher.updates} == {("several", "walk"), ("several", "step")}


def test_memory_running_out_halves_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, watcher = Linear(), Watcher()
    images = linear_images(model)
    (record,) = run(tmp_path, model, images, [Hungry()], LINF, batch_size=128, progress=watcher)
    (plain,) = run(tmp_path, model, images, [Step()], LINF)
    assert watcher.notes == [f"memory ran out; going on with batches of {n}" for n in (64, 32, 16)]
    assert (record.robust, record.parts[0].forwards) == (plain.robust, 190)
    with pytest.raises(BadValueError, match="'hungry' needs more memory"):
        run(tmp_path, model, images, [Hungry(fits=0)], LINF)


def test_the_gallery_shows_broken_points_of_all_classes(tmp_path: Path) -> None:
    model, test = digits()
    (record,) = run(tmp_path, model, test, [Step()], ThreatModel("linf", 0.2))
    gallery = Gallery.read(RunFolder(tmp_path).gallery(record.stem))
    # After them come the robust ones that were closest, with the margin that was left.
    some = np.isnan(gallery.margins)
    assert some.sum() == attacking.SHOWN
    gallery = Gallery(**{name: values[some] for name, values in vars(gallery).items()})
    assert len(set(gallery.labels.tolist())) >= 8
    assert torch.equal(
        torch.from_numpy(gallery.x), test.take(torch.from_numpy(gallery.ids)).float() / 255
    )
    assert (gallery.clean_predictions == gallery.labels).all()
    assert (gallery.adversarial_predictions != gallery.labels).all()
    again = model(torch.from_numpy(gallery.x_adv)).argmax(1).numpy()
    assert np.array_equal(again, gallery.adversarial_predictions)
    assert np.abs(gallery.x_adv - gallery.x).max() <= 0.2 + 1e-6


def test_a_randomised_model_is_judged_over_more_passes(tmp_path: Path) -> None:
    model = Noisy()
    tables = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        (record,) = run(folder, model, linear_images(Linear()), [Step()], LINF)
        tables.append(verdicts(folder, record))
    assert record.judged_by == 10
    assert any("randomised" in line for line in record.warnings)
    assert tables[0] == tables[1]


@pytest.mark.parametrize("kind", [Linear, Noisy])
def test_a_gradient_is_asked_in_parts_but_of_a_randomised_model(
    kind: type[Linear], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it answers depends on the call. More threads fill more."""
    shown: list[int] = []

    class Watched(kind):  # type: ignore[valid-type, misc]
        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                shown.append(len(x))
            return super().forward(x)

    monkeypatch.setattr(victim, "VALUES", 10 * 16)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    (record,) = run(tmp_path, Watched(), linear_images(Linear()), [PGD(steps=2)], LINF)
    parts = -(-record.clean.count // 20)
    asked = record.clean.count if kind is Noisy else -(-record.clean.count // parts)
    assert max(shown) == asked > CHUNK // 4


def test_hashes_tell_models_apart() -> None:
    one = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    same = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    same.load_state_dict(one.state_dict())
    assert hash_module(one) == hash_module(same)
    assert hash_module(one) != hash_module(nn.Sequential(one[0], nn.ELU()))
    with torch.no_grad():
        same[0].bias[1] += 1e-6
    assert hash_module(one) != hash_module(same)


# ---- killed and resumed ----


def check_killed_and_resumed(tmp_path: Path, seed: int, how: str, moments: int) -> None:
    model, test = digits()
    attack, threat = KILLED
    (whole,) = run(tmp_path / "whole", model, test, [attack], threat)
    dies_at = random.Random(seed).randrange(moments)
    print(f"seed {seed}: killed at {how} {dies_at}")
    folder = tmp_path / "killed"
    file = tmp_path / "digits.npz"
    weight, bias = model.head.weight.detach().numpy(), model.head.bias.detach().numpy()
    x = test.take(torch.arange(len(test))).numpy()
    np.savez(file, x=x, y=test.labels.numpy(), weight=weight, bias=bias)
    code = "import eval_parts, pathlib; eval_parts.run_killed("
    code += f"pathlib.Path({str(file)!r}), pathlib.Path({str(folder)!r}), {dies_at}, {how!r})"
    died = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=False)
    assert died.returncode == -signal.SIGKILL
    left, watcher = len(list(folder.glob("eval/*.partial/block*"))), Watcher()
    (resumed,) = run(
        folder, model, test, [attack], threat, resume=True, batch_size=48, progress=watcher
    )
    assert [int(note.split(": ")[1].split()[0]) for note in watcher.notes] == [left][: left > 0]
    assert verdicts(folder, resumed) == verdicts(tmp_path / "whole", whole)
    drop = {"provenance", "parts"}
    assert resumed.model_dump(exclude=drop) == whole.model_dump(exclude=drop)
    for one, other in zip(resumed.parts, whole.parts, strict=True):
        assert one.model_copy(update={"seconds": other.seconds}) == other
    assert not list((folder / "eval").glob("*.partial"))


@pytest.mark.parametrize(
    ("seed", "how", "moments"), [(0, "progress", 30), (1, "progress", 30), (2, "file", 14)]
)
def test_killed_and_resumed_gives_the_unbroken_verdicts(
    seed: int, how: str, moments: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL_BLOCK)
    check_killed_and_resumed(tmp_path, seed, how, moments)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 20))
def test_killed_at_many_moments(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL_BLOCK)
    check_killed_and_resumed(tmp_path, seed, *(("progress", 30), ("file", 15))[seed % 2])


def test_ctrl_c_leaves_what_resume_takes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL_BLOCK)
    model, test = digits()
    model.train()
    attack, threat = KILLED
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model, test, [attack], threat, progress=Impatient(14))
    assert model.training and model.head.weight.requires_grad
    (partial,) = (tmp_path / "eval").glob("*.partial")
    steps = sorted(p.name for p in partial.glob("block*"))
    assert len(steps) >= 5
    (partial / steps[1]).write_bytes(b"damaged")
    watcher = Watcher()
    (resumed,) = run(tmp_path, model, test, [attack], threat, resume=True, progress=watcher)
    assert f"{len(steps) - 1} steps are done already" in watcher.notes[0]
    (whole,) = run(tmp_path, model, test, [attack], threat, fresh=True)
    assert (resumed.robust, resumed.confusion_adversarial) == (
        whole.robust,
        whole.confusion_adversarial,
    )


def test_without_resume_it_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", SMALL_BLOCK)
    model, test = digits()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model, test, [KILLED[0]], KILLED[1], progress=Impatient(14))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model, test, [KILLED[0]], KILLED[1], progress=Impatient(2))
    assert len(list(tmp_path.glob("eval/*.partial/block*"))) <= 2
    watcher = Watcher()
    run(tmp_path, model, test, [KILLED[0]], KILLED[1], progress=watcher)
    assert watcher.notes == []


def test_start_up_stays_light() -> None:
    """What evaluation adds to torch itself."""
    code = """
import sys, torch
before = set(sys.modules)
import tempfile
from pathlib import Path
from eval_parts import Linear, linear_images, run
from robustkit.catalog import build
from robustkit.threat import ThreatModel
model = Linear()
attacks = [build("attack", "pgd"), build("attack", "fgsm")]
run(Path(tempfile.mkdtemp()), model, linear_images(model), attacks, ThreatModel("linf", 0.01))
new = {m.split(".")[0] for m in set(sys.modules) - before}
print(sorted(new & {"torchvision", "lightning_fabric", "matplotlib", "tensorboard", "art", "sympy"}))
print("torch.optim" in set(sys.modules) - before)
"""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "False"]
