"""Training: the step by hand, the same bits after a kill, and nothing lost or overwritten."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import PrivateAttr
from torch import Tensor, nn
from torch.nn import functional as F
from training import SMALL, Run, differences, same_run, small, weights

from robustkit import recipe as recipes
from robustkit.attacks.pgd import FGSM
from robustkit.catalog import Entry, installed
from robustkit.data.augment import Augmentation
from robustkit.data.batches import DeviceImages
from robustkit.engine.fit import fit
from robustkit.engine.fitting import Fitting
from robustkit.engine.journal import claimed
from robustkit.engine.kit import TrainingKit
from robustkit.engine.loop import Silent
from robustkit.engine.points import Points, divide
from robustkit.engine.presenting import Presenting
from robustkit.engine.processes import Processes, launch
from robustkit.engine.resolve import build
from robustkit.engine.selection import Measured, Selection
from robustkit.engine.verdict import exact
from robustkit.errors import BadValueError, TrainingStoppedError
from robustkit.interfaces import Attack, Batch, Clock, Terms
from robustkit.models.files import load_model
from robustkit.recipe import Recipe
from robustkit.records import EpochLine, RunFolder, RunRecord
from robustkit.trainers.standard import Standard


def folder(path: Path, name: str = "run") -> RunFolder:
    return RunFolder(path / name)


def here(work: Any) -> Any:
    """Call something with the one process of this test."""
    return launch(work, (), processes=1, device="cpu", precision="32")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """An unbroken run."""
    torch.set_num_threads(1)
    run = folder(tmp_path_factory.mktemp("whole"))
    fit(small(), run, device="cpu")
    return run


def test_a_run_leaves_everything(whole: RunFolder) -> None:
    record = RunRecord.read(whole.record)
    assert record.finished
    assert record.epochs_done == 4
    assert (record.n_train, record.n_heldout) == (200, 100)
    lines = whole.epochs()
    assert [line.epoch for line in lines] == [1, 2, 3, 4]
    assert [line.lr for line in lines] == pytest.approx(
        [0.01 * (1 - s / 16) for s in (3, 7, 11, 15)]
    )
    assert (lines[-1].train_accuracy or 0) > (lines[0].train_accuracy or 0)
    assert record.heldout_clean is not None
    assert record.heldout_adversarial is not None
    best = lines[record.best_epoch - 1]  # type: ignore[operator]
    assert best.heldout_accuracy == record.heldout_clean.value
    assert all(0 < (line.heldout_balanced or 0) < 1 for line in lines)
    assert all(0 <= (line.heldout_adversarial_balanced or 0) < 1 for line in lines)
    assert best.heldout_adversarial == max(line.heldout_adversarial or 0 for line in lines)
    assert list(whole.path.glob("events.*"))
    loaded = load_model(whole.model)
    assert loaded.record["data"] == {"name": "digits"}
    assert loaded.record["threat"]["eps"] == 0.05
    assert record.provenance.versions["torch"] == torch.__version__.split("+")[0]
    again = recipes.validate(recipes.read(whole.recipe))
    assert again == small()


def test_the_recipe_in_the_run_makes_the_same_run(whole: RunFolder, tmp_path: Path) -> None:
    second = folder(tmp_path)
    fit(recipes.validate(recipes.read(whole.recipe)), second, device="cpu")
    assert same_run(whole, second) == []


class Breaks(Silent):
    """Raises at a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, clock: Clock) -> None:
        if clock.step == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("step", "threads"), [(2, 1), (7, 2), (8, 1), (15, 2)])
def test_interrupted_and_resumed_it_ends_with_the_same_bits(
    whole: RunFolder, tmp_path: Path, step: int, threads: int
) -> None:
    run = folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), run, device="cpu", progress=Breaks(step))
    torch.set_num_threads(threads)
    assert len(run.epochs()) == step // 4
    record = fit(small(), run, resume=True, device="cpu")
    assert record.finished
    assert same_run(whole, run) == []


def test_the_best_epoch_is_remembered_over_a_break(tmp_path: Path) -> None:
    jumpy = ("optimizer", {"name": "adam", "lr": 0.3})
    for seed in range(20):
        recipe = small(jumpy, ("seed", seed))
        whole, broken = folder(tmp_path, f"whole-{seed}"), folder(tmp_path, f"broken-{seed}")
        best = fit(recipe, whole, device="cpu").best_epoch
        if best in (1, 2):
            break
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, broken, device="cpu", progress=Breaks(9))
    assert fit(recipe, broken, resume=True, device="cpu").best_epoch == best
    assert same_run(whole, broken) == []


def test_a_kill_between_two_files_leaves_nothing_twice(whole: RunFolder, tmp_path: Path) -> None:
    run = folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), run, device="cpu", progress=Breaks(9))
    line = run.epochs()[-1].model_copy(update={"epoch": 3})
    with run.metrics.open("a") as file:
        file.write(line.model_dump_json() + "\n" + '{"epoch": 4, "st')
    (run.path / ".checkpoint.pt.x1").write_bytes(b"half")
    fit(small(), run, resume=True, device="cpu")
    assert same_run(whole, run) == []
    assert not list(run.path.glob(".checkpoint*"))


def test_killed_by_the_system_it_ends_with_the_same_bits(whole: RunFolder, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"kills seeded by {seed}")
    rng, run = random.Random(seed), folder(tmp_path)
    killed = Run(small(), run)
    for epochs in (0, 1, 2):
        killed.kill(epochs, rng)
    if run.recipe.exists():
        recipes.read(run.recipe)
    killed.finish()
    assert same_run(whole, run) == []


def test_two_processes_train_as_one_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    # Without dropout, whose draws are each process's own; 198 points share unevenly.
    recipe = small(
        ("model.dropout", 0.0), ("fit.epochs", 3), ("fit.limit", 198),
        ("optimizer", {"name": "sgd", "lr": 0.05}),
    )  # fmt: skip
    one, two, broken = (folder(tmp_path, name) for name in ("one", "two", "broken"))
    fit(recipe, one, device="cpu")
    Run(recipe, two, 2).finish()
    first, second = weights(one)["work"]["model"], weights(two)["work"]["model"]
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, rtol=1e-4, atol=1e-5)
    killed = Run(recipe, broken, 2)
    killed.kill(1, random.Random(0))
    killed.finish()
    assert same_run(two, broken) == []
    assert RunRecord.read(two.record).provenance.processes == 2


@pytest.mark.slow
def test_started_afresh_the_processes_do_the_same(tmp_path: Path) -> None:
    """As users start them: spawned, each importing everything anew."""
    forked, spawned = folder(tmp_path, "forked"), folder(tmp_path, "spawned")
    Run(small(), forked, 2).finish()
    fit(small(), spawned, device="cpu", processes=2, progress=Silent())
    assert same_run(forked, spawned) == []
    with pytest.raises(BadValueError, match="already holds a run"):
        fit(small(), spawned, device="cpu", processes=2)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_fifty_kills_change_no_bit(tmp_path: Path, processes: int) -> None:
    seed = random.randrange(2**32)
    print(f"kills seeded by {seed}")
    rng, recipe = random.Random(seed), small(("fit.epochs", 30))
    whole, broken = folder(tmp_path, "whole"), folder(tmp_path, "broken")
    Run(recipe, whole, processes).finish()
    killed = Run(recipe, broken, processes)
    for kill in range(25):
        killed.kill(kill, rng)
    killed.finish()
    assert same_run(whole, broken) == []


def test_a_finished_run_is_not_overwritten(whole: RunFolder) -> None:
    before = whole.model.read_bytes(), whole.record.read_bytes()
    with pytest.raises(BadValueError, match="already holds a run.*--resume"):
        fit(small(), whole, device="cpu")
    assert fit(small(), whole, resume=True, device="cpu").finished
    assert (whole.model.read_bytes(), whole.record.read_bytes()) == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("optimizer.lr", 0.02), r"optimizer.lr is 0.01 there, not 0.02"),
        (("attack.steps", 3), r"trainer.attack.steps is 2 there, not 3"),
        (("seed", 1), r"seed is 0 there, not 1"),
    ],
)
def test_a_run_of_another_recipe_is_not_resumed(
    whole: RunFolder, setting: tuple[str, Any], message: str
) -> None:
    with pytest.raises(BadValueError, match=message) as caught:
        fit(small(setting), whole, resume=True, device="cpu")
    assert "\n" not in str(caught.value)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(BadValueError, match="no run to resume"):
        fit(small(), folder(tmp_path), resume=True, device="cpu")


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    run = folder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), run, device="cpu", progress=Breaks(5))
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:1000])
    with pytest.raises(BadValueError, match="checkpoint.pt' is damaged") as caught:
        fit(small(), run, resume=True, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "options", "message"),
    [
        (("threat.eps", "inf"), {}, "threat.eps"),
        (("fit.precision", "16"), {}, "needs a GPU"),
        (("fit.batch_size", 1), {"processes": 0}, "processes"),
        (("fit.heldout", 1437), {}, "hold out"),
        (("seed", 0), {"device": "abacus"}, "abacus"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    tmp_path: Path, setting: tuple[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadValueError, match=message):
        fit(small(setting), folder(tmp_path), **{"device": "cpu", **options})


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(BadValueError, match="cannot write"):
        fit(small(), RunFolder(tmp_path / "file" / "run"), device="cpu")


def test_training_that_diverges_stops_and_says_so(tmp_path: Path) -> None:
    run = folder(tmp_path)
    recipe = small(
        ("optimizer", {"name": "sgd", "lr": 1e30}), ("trainer.name", "standard"), ("fit.epochs", 3)
    )
    with pytest.raises(
        TrainingStoppedError, match=r"epoch 1, step [23]: the loss.*lower optimizer.lr"
    ):
        fit(recipe, run, device="cpu")
    record = RunRecord.read(run.record)
    assert not record.finished
    assert "diverged" in record.stopped
    assert recipes.read(run.recipe)


def test_collapse_is_noticed() -> None:
    def measured(predicted: int) -> Measured:
        return Measured(n=100, correct=10, loss=2.3, predicted=predicted)

    selection = Selection("clean", 40)
    for epoch in range(1, 10):
        selection.watch(epoch, measured(1))
    with pytest.raises(TrainingStoppedError, match="since epoch 1 .* one class for all 100"):
        selection.watch(10, measured(1))
    selection = Selection("clean", 40)
    selection.watch(1, measured(7))
    selection.watch(2, measured(1))
    selection.watch(3, measured(1))
    with pytest.raises(TrainingStoppedError, match="since epoch 2"):
        selection.watch(4, measured(1))


def test_a_rare_class_counts_as_much_as_another(tmp_path: Path) -> None:
    class Zero(nn.Module):
        """Takes everything for class 0."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.new_ones(len(x)), 0 * x.flatten(1).sum(1)], 1)

    data = {"name": "subset", "data": "digits", "classes": ["0", "1"], "imbalance": 0.25}
    recipe = small(("fit.heldout", 20), ("fit.limit", 50), ("select.limit", 10), data=data)

    def measure(processes: Processes) -> Measured:
        heldout = Fitting(processes, recipe, build(recipe), folder(tmp_path)).heldout
        with exact():
            return heldout.measure(Zero(), attacked=True)

    found = here(measure)
    assert (found.n, found.correct, found.predicted) == (20, 16, 1)
    assert (found.attacked, found.robust) == (10, 8)
    assert found.balanced == found.balanced_adversarial == 0.5


def test_the_best_epoch_ties_go_to_the_other_accuracy_then_to_the_first() -> None:
    def measured(correct: int, robust: int) -> Measured:
        return Measured(n=10, correct=correct, loss=0, predicted=5, attacked=10, robust=robust)

    for metric, best in (("adversarial", 3), ("clean", 2), ("last", 5)):
        selection = Selection(metric, 40)
        for epoch, (correct, robust) in enumerate([(5, 5), (9, 4), (8, 6), (7, 6), (8, 6)], 1):
            selection.offer(epoch, measured(correct, robust))
        assert selection.best["epoch"] == best


def test_one_step_by_hand(tmp_path: Path) -> None:
    """Plain SGD on the whole batch's mean cross-entropy, with the gradient clipped."""
    recipe = small(
        ("trainer.name", "standard"), ("model.hidden", []), ("fit.batch_size", 200),
        ("optimizer", {"name": "sgd", "lr": 0.5, "momentum": 0.0, "clip": 0.1}),
    )  # fmt: skip

    def step(processes: Processes) -> None:
        work = Fitting(processes, recipe, build(recipe), folder(tmp_path))
        (batch,) = work.batches.epoch(0)
        before = [p.detach().clone() for p in work.model.parameters()]
        loss = F.cross_entropy(work.model(batch.x), batch.y)
        gradients = torch.autograd.grad(loss, list(work.model.parameters()))
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert norm > 0.1
        n, total, _ = work.step(batch, Clock(0, 4, 0, 4)).tolist()
        assert n == 200
        assert total / n == pytest.approx(loss.item(), rel=1e-5)
        for parameter, old, gradient in zip(
            work.model.parameters(), before, gradients, strict=True
        ):
            expected = old - 0.5 * gradient * 0.1 / norm
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)

    here(step)


class Watching(Standard):
    """Notes in which mode it sees the model, and whether the weights ask for gradients."""

    _seen: list[tuple[str, bool, bool]] = PrivateAttr(default_factory=list)

    def adversary(self, model: nn.Module, batch: Batch, clock: Clock) -> Batch:
        self._note("adversary", model)
        return batch

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        self._note("objective", model)
        return super().objective(model, batch, clock)

    def _note(self, where: str, model: nn.Module) -> None:
        wanted = any(p.requires_grad for p in model.parameters())
        self._seen.append((where, model.training, wanted))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_adversary_sees_a_frozen_model_the_objective_one_in_training(
    tmp_path: Path, mode: str
) -> None:
    recipe = small(("fit.adversary_mode", mode))

    def step(processes: Processes) -> None:
        work = Fitting(processes, recipe, build(recipe), folder(tmp_path))
        watching = work.trainer = Watching()
        watching.prepare(work.kit)
        work.step(next(work.batches.epoch(0)), Clock(0, 4, 0, 16))
        assert watching._seen == [("adversary", mode == "train", False), ("objective", True, True)]

    here(step)


def kit_of(recipe: Recipe) -> tuple[Points, TrainingKit]:
    points = divide(build(recipe).data, recipe.fit, recipe.seed)
    images, threat = DeviceImages(points.train), recipe.threat.model()
    augmentation = Augmentation(recipe.fit.augment, points.mean)
    presenting = Presenting(recipe.fit, images, augmentation, 0)
    return points, TrainingKit(points, presenting, threat, 0, lambda *_: None)  # type: ignore[arg-type]


class Asked(Attack):
    name = "asked"
    _y: Tensor = PrivateAttr()

    def perturb(self, victim, x, y, threat, rng, target=None):  # type: ignore[no-untyped-def]
        self._y = y
        return x


class AskedSoftly(Asked):
    soft = True


def test_the_kit_gives_soft_labels_only_to_attacks_that_take_them() -> None:
    points, kit = kit_of(small())
    batch = DeviceImages(points.train).batch(torch.arange(4))
    hard, soft = batch.y, F.one_hot(batch.y, 10) * 0.9 + 0.01
    for attack, given in ((Asked(), hard), (AskedSoftly(), soft)):
        kit.perturb(attack, nn.Identity(), batch.replace(y=soft), Clock())
        assert torch.equal(attack._y, given)


class Filled(Attack):
    name = "filled"
    _most: int = PrivateAttr()

    def perturb(self, victim, x, y, threat, rng, target=None):  # type: ignore[no-untyped-def]
        self._most = victim.most(x)
        return x


def test_the_kit_asks_a_batch_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """In training mode its statistics are those of all."""
    monkeypatch.setattr("robustkit.engine.victim.VALUES", 0)
    points, kit = kit_of(small())
    batch, attack = DeviceImages(points.train).batch(torch.arange(40)), Filled()
    kit.perturb(attack, nn.Identity(), batch, Clock())
    assert attack._most >= 40


def test_the_kit_augments_the_points_themselves_anew_under_each_name() -> None:
    points, kit = kit_of(small(("fit.augment", ["crop"])))
    batch = DeviceImages(points.train).batch(torch.arange(30))
    moved = batch.replace(x=torch.zeros_like(batch.x))
    first = kit.augmented(moved, Clock(), "first")
    assert torch.equal(first, kit.augmented(batch, Clock(), "first"))
    assert first.shape == batch.x.shape
    for other in (kit.augmented(batch, Clock(), "b"), kit.augmented(batch, Clock(step=1), "first")):
        assert not torch.equal(first, other)
    _, plain = kit_of(small())
    assert torch.equal(plain.augmented(moved, Clock(), "first"), batch.x)


class Content(Standard):
    """Has enough after two epochs."""

    name = "content"

    def enough(self, metrics: Mapping[str, float]) -> str:
        return "it is good enough" if metrics["epoch"] == 2 else ""


def test_a_trainer_that_has_enough_ends_a_run_that_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Entry("trainer", "content", f"{__name__}:Content", "t", "t")
    monkeypatch.setitem(installed().entries, ("trainer", "content"), entry)
    run, recipe = RunFolder(tmp_path / "run"), small(trainer="content")
    record = fit(recipe, run, device="cpu")
    assert (record.finished, record.epochs_done, record.epochs) == (True, 2, 4)
    assert record.stopped == "it is good enough"
    run.record.unlink()  # as a kill between checkpoint and record leaves it
    again = fit(recipe, run, resume=True, device="cpu")
    assert (again.finished, again.epochs_done, again.stopped) == (True, 2, "it is good enough")


def test_the_kit_attacks_under_the_recipes_threat() -> None:
    """FGSM on a linear model: every pixel by eps, towards the other class, within the box."""
    recipe = small()
    points, kit = kit_of(recipe)
    batch = DeviceImages(points.train).batch(torch.arange(20))
    batch = batch.replace(y=batch.y % 2)
    linear = nn.Linear(64, 2)
    x_adv = kit.perturb(FGSM(), nn.Sequential(nn.Flatten(), linear), batch, Clock())
    towards = (linear.weight[1] - linear.weight[0]).sign().view(1, 1, 8, 8)
    sides = (1 - 2 * batch.y.float()).view(-1, 1, 1, 1)
    torch.testing.assert_close(x_adv, (batch.x + 0.05 * sides * towards).clamp(0, 1))
    assert not x_adv.requires_grad


def test_bf16_trains_and_keeps_weights_in_float32(tmp_path: Path) -> None:
    run = folder(tmp_path)
    fit(small(("fit.precision", "bf16"), ("fit.epochs", 1)), run, device="cpu")
    assert {w.dtype for w in weights(run)["work"]["model"].values()} == {torch.float32}


def test_held_out_points_are_never_trained_on() -> None:
    recipe = small()
    points = divide(build(recipe).data, recipe.fit, recipe.seed)
    train = {x.numpy().tobytes() for x in points.train.take(torch.arange(len(points.train)))}
    heldout = {x.numpy().tobytes() for x in points.heldout.take(torch.arange(len(points.heldout)))}
    assert not train & heldout
    assert points.counts.sum() == len(points.train) == 200
    assert points.counts.min() > 10


def test_the_kits_random_numbers_are_of_the_step_and_the_point() -> None:
    recipe = small()
    points, kit = kit_of(recipe)
    batch = DeviceImages(points.train).batch(torch.tensor([5, 3]))
    other = DeviceImages(points.train).batch(torch.tensor([3]))
    draw = kit.rng(batch, Clock(step=1), "a").uniform()
    assert draw[1] == kit.rng(other, Clock(step=1), "a").uniform()[0]
    assert draw[1] != kit.rng(other, Clock(step=2), "a").uniform()[0]
    assert draw[1] != kit.rng(other, Clock(step=1), "b").uniform()[0]


def test_the_kinds_of_files_a_checkpoint_holds_are_plain(whole: RunFolder) -> None:
    state = weights(whole)
    assert state["epochs"] == 4
    assert differences(state, state) == []
    assert json.loads(whole.metrics.read_text().splitlines()[0])["epoch"] == 1
    assert EpochLine.model_validate_json(whole.metrics.read_text().splitlines()[-1]).epoch == 4
    assert SMALL["fit"]["epochs"] == 4


def test_a_run_of_before_an_option_was_there_can_be_gone_on_with(tmp_path: Path) -> None:
    run, recipe = folder(tmp_path), small(("fit.epochs", 1))
    first = fit(recipe, run, device="cpu")
    lines = run.recipe.read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("restarts", "cycles"))]
    assert len(kept) < len(lines)
    run.recipe.write_text("\n".join(kept), "utf-8")
    assert fit(recipe, run, resume=True, device="cpu") == first


def test_one_process_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    run, recipe = folder(tmp_path), small(("fit.epochs", 1))
    with (
        claimed(run),
        pytest.raises(BadValueError, match="is being trained in by another process"),
    ):
        fit(recipe, run, device="cpu")
    assert fit(recipe, run, device="cpu").finished
