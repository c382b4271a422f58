"""Training of generators: the step, averaged parts, few labels, classifiers, collapse, resume."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from training import Run, same_run, weights

from robustkit import Batch, Clock, Generator, Rng
from robustkit.catalog import Entry, build, installed
from robustkit.engine import collapse
from robustkit.engine.collapse import Collapse
from robustkit.engine.fit import fit
from robustkit.engine.points import divide
from robustkit.engine.processes import Processes, launch
from robustkit.engine.resolve import resolve
from robustkit.engine.rng import PointRng
from robustkit.engine.sampling import BLOCK, Trained, load_generator
from robustkit.engine.synthesise import Synthesis
from robustkit.errors import BadValueError, TrainingStoppedError
from robustkit.models.files import load_model
from robustkit.recipe import Recipe
from robustkit.records import RunFolder, RunRecord

SMALL: dict[str, Any] = {
    "data": "digits",
    "generator": {"name": "cdcgan", "width": 4, "code": 5},
    "optimizer": {"name": "adam", "lr": 0.002, "beta1": 0.5},
    "fit": {"epochs": 2, "batch_size": 50, "limit": 200, "heldout": 100},
}
SGAN = {"name": "sgan", "width": 8, "code": 5}


def small(*settings: tuple[str, Any], **sections: Any) -> Recipe:
    recipe, _ = resolve({**SMALL, **sections}, settings)
    return recipe


class Table(Generator):
    """Remembers images: one of its rows is drawn. Where `stuck`, all rows go to the same one."""

    name = "table"
    stuck: bool = False

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.ModuleDict:
        size = shape[0] * shape[1] * shape[2]
        return nn.ModuleDict({"rows": nn.Sequential(nn.Linear(256, size), nn.Unflatten(1, shape))})

    def step(
        self, parts: nn.ModuleDict, batch: Batch, clock: Clock, rng: Rng
    ) -> Iterator[tuple[str, Tensor]]:
        wanted = torch.full_like(batch.x, 0.5) if self.stuck else batch.x
        made = parts["rows"](self.codes(len(batch), rng))
        yield "rows", (made - wanted).square().flatten(1).sum(1)

    def codes(self, n: int, rng: Rng) -> Tensor:
        return F.one_hot(rng.choice(256), 256).float()

    def decode(self, parts: nn.ModuleDict, codes: Tensor, y: Tensor | None) -> Tensor:
        return parts["rows"](codes).clamp(0, 1)


class Twice(Generator):
    """Takes two turns with one part, and keeps what that part gives in each."""

    name = "twice"
    seen: ClassVar[list[Any]] = []

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.ModuleDict:
        return nn.ModuleDict({"one": nn.Linear(64, 3, bias=False), "other": nn.Linear(3, 64)})

    def step(
        self, parts: nn.ModuleDict, batch: Batch, clock: Clock, rng: Rng
    ) -> Iterator[tuple[str, Tensor]]:
        for part in ("one", "other", "one"):
            out = parts["one"](batch.x.flatten(1))
            weight = next(parts["one"].parameters())
            gradients = {n: [p.grad is not None for p in m.parameters()] for n, m in parts.items()}
            self.seen.append((part, out.detach(), weight.detach().clone(), gradients, batch.x))
            yield part, parts["other"](out).square().mean(1)

    def sample(self, parts: nn.ModuleDict, n: int, y: Tensor | None, rng: Rng) -> Tensor:
        return rng.uniform((1, 8, 8))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for component in (Table, Twice):
        entry = Entry("generator", component.name, f"{__name__}:{component.__name__}", "t", "t")
        monkeypatch.setitem(installed().entries, ("generator", component.name), entry)


def alone(work: Any, precision: str = "32") -> Any:
    return launch(work, (), processes=1, device="cpu", precision=precision)


def synthesis(processes: Processes, recipe: Recipe) -> Synthesis:
    from robustkit.engine.resolve import build as components

    return Synthesis(processes, recipe, components(recipe), RunFolder(Path("nowhere")))


def test_the_step_is_that_of_plain_pytorch() -> None:
    """Two optimisers in turn, each after one backward of the whole loss."""
    recipe = small(generator={"name": "dcgan", "width": 4, "code": 5})

    def check(processes: Processes) -> None:
        work = synthesis(processes, recipe)
        generator, parts = work.generator, build("generator", recipe.generator).build((1, 8, 8), 10)
        parts.load_state_dict(work.parts.state_dict())
        adam = {n: optim.Adam(p.parameters(), 0.002, (0.5, 0.999)) for n, p in parts.items()}
        for step, batch in enumerate(work.batches.epoch(0)):
            ours = work.step(batch, Clock(0, 2, step, 8))
            rng = PointRng(0, f"dcgan at {step}", batch.ids)
            for name, loss in generator.step(parts.train(), batch, Clock(0, 2, step, 8), rng):
                parts.zero_grad()
                loss.mean().backward()
                adam[name].step()
                torch.testing.assert_close(ours[name], loss.mean(), rtol=1e-4, atol=1e-5)
        for key, weight in parts.state_dict().items():
            torch.testing.assert_close(work.parts.state_dict()[key], weight, rtol=1e-3, atol=1e-5)

    alone(check)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_each_turn_sees_the_weights_that_the_last_one_left(precision: str) -> None:
    Twice.seen.clear()

    def check(processes: Processes) -> None:
        work = synthesis(processes, small(("fit.precision", precision), generator="twice"))
        work.step(next(iter(work.batches.epoch(0))), Clock())

    alone(check, precision)
    names, outs, used, gradients, x = zip(*Twice.seen, strict=True)
    assert names == ("one", "other", "one")
    assert not torch.equal(used[0], used[1])
    assert torch.equal(used[1], used[2])
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    for out, weight, images in zip(outs, used, x, strict=True):
        assert torch.equal(out, F.linear(images.flatten(1).to(kind), weight.to(kind)))
    assert gradients[1] == {"one": [True], "other": [False, False]}  # of the one whose turn it was


def test_diverged_training_names_the_part() -> None:
    recipe = small(("optimizer", {"name": "sgd", "lr": 1e30}), generator="table")

    def check(processes: Processes) -> None:
        work = synthesis(processes, recipe)
        for step, batch in enumerate(work.batches.epoch(0)):
            work.step(batch, Clock(0, 2, step, 8))

    with pytest.raises(TrainingStoppedError, match="the loss of 'rows' is not finite"):
        alone(check)


@pytest.mark.parametrize(
    ("generator", "settings"),
    [
        (SMALL["generator"], [("fit.average", 0.8)]),
        (SGAN, [("fit.average", 0.8), ("fit.labels", 20), ("fit.labelled_share", 0.25)]),
    ],
)
def test_killed_and_resumed_to_the_same_bits(
    generator: dict[str, Any], settings: list[Any], tmp_path: Path
) -> None:
    recipe = small(("fit.epochs", 3), *settings, generator=generator)
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    Run(recipe, whole).finish()
    killed = Run(recipe, broken)
    killed.kill(1, random.Random(str(generator)))
    killed.finish()
    assert same_run(whole, broken) == []
    first, second = (load_generator(run.generator) for run in (whole, broken))
    assert first.hash == second.hash
    state = weights(whole)["work"]
    assert all(torch.equal(w, state["average"][k]) for k, w in first.parts.state_dict().items())
    assert any(not torch.equal(w, state["parts"][k]) for k, w in state["average"].items())


def test_a_classifier_is_saved_of_its_best_epoch_and_the_generator_of_the_last(
    tmp_path: Path,
) -> None:
    recipe = small(("fit.epochs", 6), ("optimizer.lr", 0.005), generator=SGAN)
    run = RunFolder(tmp_path / "run")
    record = fit(recipe, run, device="cpu")
    accuracies = [line.heldout_accuracy or 0.0 for line in run.epochs()]
    assert record.best_epoch == accuracies.index(max(accuracies)) + 1
    assert record.heldout_clean is not None and record.heldout_clean.value == max(accuracies) > 0.4
    loaded, trained = load_model(run.model), load_generator(run.generator)
    assert trained.record["epoch"] == 6 and loaded.record["epoch"] == record.best_epoch
    assert loaded.architecture["name"] == "generator-classifier"
    assert loaded.architecture["generator"]["name"] == "sgan"
    points = divide(build("dataset", "digits"), recipe.fit, recipe.seed).heldout
    x = points.take(torch.arange(100)).float() / 255
    with torch.no_grad():
        logits = loaded.module(x)
        halves = loaded.module.head(loaded.module.features(x))  # type: ignore[operator]
    assert torch.equal(halves, logits)
    right = (logits.argmax(1) == points.labels).sum()
    assert int(right) == record.heldout_clean.count


def test_trainers_have_no_share_of_labelled_points(tmp_path: Path) -> None:
    sections = {**SMALL, "trainer": "standard"}
    sections.pop("generator")
    recipe, _ = resolve(sections, [("fit.labelled_share", 0.25)])
    with pytest.raises(BadValueError, match="labelled_share is 0.25, but trainers"):
        fit(recipe, RunFolder(tmp_path / "run"), device="cpu")


def test_each_step_sees_the_share_of_labelled_points(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [("fit.labels", 20), ("fit.labelled_share", 0.25)]

    def check(processes: Processes) -> None:
        work = synthesis(processes, small(*settings, generator=SGAN))
        # 180 points without a label, 37 or 38 a step, beside 12 of the 20.
        assert [int((b.y >= 0).sum()) for b in work.batches.epoch(0)] == [12] * 5

    alone(check)


def test_last_keeps_the_classifier_of_the_last_epoch(tmp_path: Path) -> None:
    recipe = small(("select.metric", "last"), generator=SGAN)
    assert fit(recipe, RunFolder(tmp_path / "run"), device="cpu").best_epoch == 2


def test_a_generator_without_a_classifier_leaves_none(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record = fit(small(("fit.epochs", 1)), run, device="cpu")
    assert record.best_epoch is None and record.model == {"name": "cdcgan"}
    assert not run.model.exists()
    architecture = build("model", {"name": "generator-classifier", "generator": "dcgan"})
    with pytest.raises(BadValueError, match="generator 'dcgan' trains no classifier"):
        architecture.build((1, 8, 8), 10, [0.0], [1.0])


def test_the_same_network_is_trained_by_a_trainer_on_the_same_labels(tmp_path: Path) -> None:
    model = {"name": "generator-classifier", "generator": SGAN}
    sections = {**SMALL, "generator": None, "model": model, "trainer": "standard"}
    recipe, _ = resolve(
        {k: v for k, v in sections.items() if v is not None},
        [("fit.labels", 50), ("select.attack", "fgsm")],
    )
    record = fit(recipe, RunFolder(tmp_path / "run"), device="cpu")
    assert record.n_train == 50
    loaded = load_model(tmp_path / "run" / "model.pt")
    assert loaded.module.features[0].mean.item() > 0.1  # type: ignore[index,union-attr]


@pytest.mark.parametrize("stuck", [True, False])
def test_only_a_generator_that_collapses_is_stopped(
    stuck: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collapse, "STEPS", 24)
    recipe = small(
        ("fit.epochs", 25), ("optimizer.lr", 0.05), generator={"name": "table", "stuck": stuck}
    )
    run = RunFolder(tmp_path / "run")
    if not stuck:
        assert fit(recipe, run, device="cpu").finished
        assert run.epochs()[-1].more["diversity"] > 0.3
        return
    with pytest.raises(TrainingStoppedError, match="training collapsed: .* lower optimizer.lr"):
        fit(recipe, run, device="cpu")
    lines = run.epochs()
    alike = [line.epoch for line in lines if line.more["diversity"] < collapse.ALIKE]
    # Six epochs are 24 steps; the sixth ends it before its line is written.
    assert alike[-5:] == [line.epoch for line in lines[-5:]]
    for line in lines:
        warned = line.epoch >= 6 and line.more["diversity"] < collapse.LOW
        assert bool(line.warning) == warned
    assert warned
    assert "training collapsed" in RunRecord.read(run.record).stopped


def test_epochs_of_like_images_are_counted_across_a_resume() -> None:
    points = divide(build("dataset", "digits"), small().fit, 0).train
    same = Batch(torch.zeros(256, 1, 8, 8), *(torch.full((256,), -1) for _ in range(3)))
    first, second = (Collapse(points, False, 125, 0) for _ in range(2))
    for epoch in (1, 2, 3):
        found, _ = first.watch(epoch, same)
    assert found.least == found.spread == 0.0
    second.load_state_dict(first.state_dict())
    with pytest.raises(TrainingStoppedError, match="since epoch 1 images are alike, with 0 %"):
        second.watch(4, same)
    real = Batch(first.real, *(torch.full((len(first.real),), -1) for _ in range(3)))
    assert first.watch(4, real)[0].least > 0.9
    assert first.state_dict() == {"alike": 0}


def test_real_points_of_every_class_are_compared_where_there_are_labels() -> None:
    fits = small(("fit.labels", 20)).fit
    points = divide(build("dataset", "digits"), fits, 0, unlabelled=True).train
    watched = Collapse(points, True, 100, 0)
    assert len(watched.real) == 200
    assert torch.bincount(watched.real_y[watched.real_y >= 0]).tolist() == [2] * 10


def test_tensorboard_shows_samples_and_losses(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(small(), RunFolder(tmp_path / "run"), device="cpu")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [image.step for image in events.Images("samples")] == [1, 2]
    assert events.Images("samples")[0].width == 10 * 33 + 1
    assert {"loss_generator", "loss_discriminator", "diversity"} <= set(events.Tags()["scalars"])


def test_an_image_depends_on_its_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, asked = build("generator", {"name": "cdcgan", "width": 32}), set()
    draw = type(generator).sample
    monkeypatch.setattr(
        type(generator), "sample", lambda self, *args: asked.add(args[1]) or draw(self, *args)
    )
    shape, classes = (1, 8, 8), tuple("0123456789")
    trained = Trained(generator, generator.build(shape, 10), shape, classes, {})
    many = trained.draw(BLOCK + 9, seed=3)
    for n in (1, 10, BLOCK, BLOCK + 1):
        few = trained.draw(n, seed=3)
        assert torch.equal(few.x, many.x[:n]) and torch.equal(few.y, many.y[:n])
    assert asked == {BLOCK}  # in a batch of another size the last bits may be others
    assert many.y.tolist() == [i % 10 for i in range(BLOCK + 9)]
    assert many.source.eq(1).all()
    assert not torch.equal(many.x[:5], trained.draw(5, seed=4).x)


def test_a_walk_goes_straight_from_code_to_code(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    fit(small(("fit.epochs", 1), generator="table"), run, device="cpu")
    trained = load_generator(run.generator)
    x = trained.walk(4, 5, seed=0).x.view(4, 5, 64)
    ends = trained.generator.codes(8, trained.rng(0, torch.arange(8), "walk"))
    with torch.no_grad():
        for row in range(4):
            for step in range(5):
                code = (1 - step / 4) * ends[row] + step / 4 * ends[4 + row]
                image = trained.generator.decode(trained.parts, code.unsqueeze(0), None)
                assert torch.allclose(x[row, step], image.flatten(), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": {"name": "nothing"}}, "nothing"),
        ({"generator": {"name": "cdcgan", "width": 8, "code": 5}}, "weights '.*' have shape"),
        ({"shape": (0, 8, 8)}, "damaged: shape"),
        ({"parts": {"a": 1}}, "damaged: parts"),
        ({"classes": ()}, "damaged: classes"),
        ({"schema": 2}, "not a file that this robustkit writes"),
        ({"generator": None}, "damaged: generator"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    fit(small(("fit.epochs", 1), ("fit.limit", 100)), run, device="cpu")
    torch.save({**torch.load(run.generator, weights_only=True), **change}, tmp_path / "g.pt")
    with pytest.raises(BadValueError, match=message) as caught:
        load_generator(tmp_path / "g.pt")
    assert "\n" not in str(caught.value) and "g.pt" in str(caught.value)
