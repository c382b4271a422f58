"""From a generator to a model trained beside its images, in one run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from test_types_proved import TinyGAN, _registered  # noqa: F401
from torch import Tensor, nn
from training import Run, same_run, small
from typer.testing import CliRunner

from robustkit import recipe as recipes
from robustkit.catalog import Entry, installed
from robustkit.cli import app
from robustkit.data.digits import Digits
from robustkit.data.images import ArrayImages
from robustkit.engine import fitting, synthesise
from robustkit.engine.fit import fit
from robustkit.engine.loop import Silent
from robustkit.engine.points import Points, divide
from robustkit.engine.resolve import build, resolve, start
from robustkit.engine.workshop import generator_recipe
from robustkit.errors import BadValueError
from robustkit.interfaces import Images
from robustkit.models.files import load_model
from robustkit.recipe import Recipe
from robustkit.records import RunFolder, RunRecord
from robustkit.samples import Samples

PGD = {"name": "adversarial", "attack": {"name": "pgd", "steps": 2}}


class Unasked(TinyGAN):
    """Makes images of no class that one could ask for."""

    name = "unasked"
    conditional = False

    def decode(self, parts: nn.ModuleDict, codes: Tensor, y: Tensor | None) -> Tensor:
        return super().decode(parts, codes, torch.arange(len(codes)) % 10)


@pytest.fixture(autouse=True)
def _unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("generator", "unasked", f"{__name__}:Unasked", "t", "t")
    monkeypatch.setitem(installed().entries, ("generator", "unasked"), entry)


def augmented(*more: tuple[str, Any], trainer: Any = PGD, **options: Any) -> Recipe:
    table = {"name": "gan-augmented", "generator": "tiny-gan", "n": 300, "trainer": trainer}
    return small(("fit.epochs", 2), *more, trainer={**table, **options})


def folders(run: RunFolder) -> tuple[RunFolder, RunFolder]:
    (generator,), (labeller,) = (
        list((run.path / name).iterdir()) for name in ("generators", "labellers")
    )
    return RunFolder(generator), RunFolder(labeller)


@pytest.fixture
def seen() -> Iterator[list[Points]]:
    """The points of each training, in the order in which they were divided."""
    found: list[Points] = []

    def spied(divide: Callable[..., Points]) -> Callable[..., Points]:
        def divided(*args: Any, **options: Any) -> Points:
            found.append(divide(*args, **options))
            return found[-1]

        return divided

    with pytest.MonkeyPatch.context() as patch:
        for module in (fitting, synthesise):
            patch.setattr(module, "divide", spied(module.divide))
        yield found


def test_everything_is_made_from_the_same_real_points(seen: list[Points], tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record = fit(augmented(top=0.5), run, device="cpu")
    own, made, labelled = seen
    for points in (made, labelled):
        assert points.train._ids.equal(own.train._ids)  # type: ignore[attr-defined]
        assert points.heldout._ids.equal(own.heldout._ids)  # type: ignore[attr-defined]
    generator, labeller = folders(run)
    drawn = Samples.read(generator.path / "samples-300.npz")
    kept = Samples.read(generator.path / "samples-300-top-0.5.npz")
    assert len(drawn) == 300 and record.generated is not None
    assert record.generated.n == len(kept) and record.generated.digest == kept.digest
    assert (record.n_train, record.generated.made["n_train"]) == (200, 200)
    assert record.generated.share == 0.5
    assert RunRecord.read(labeller.record).trainer["name"] == "standard"
    assert record.trainer["trainer"]["name"] == "adversarial"

    # What is kept: what the classifier reads as it was asked for, and the surer half of it.
    model = load_model(labeller.model).module.eval()
    with torch.no_grad():
        x = drawn.images.take(torch.arange(300)).float() / 255
        sure, read = model(x).double().softmax(1).max(1)
    agreed = read == drawn.images.labels
    for label in range(10):
        confidence = sure[agreed & (drawn.images.labels == label)].sort(descending=True).values
        most = max(1, int(np.rint(0.5 * len(confidence)))) if len(confidence) else 0
        own_sure = np.sort(kept.confidence[kept.images.labels.numpy() == label])[::-1]  # type: ignore[index]
        assert own_sure == pytest.approx(confidence[:most].numpy(), abs=1e-6)


def test_no_other_point_has_any_part_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fit.limit and fit.heldout, so many points are all that the whole chain ever sees."""
    generator = {"name": "cdcgan", "width": 4, "code": 5}  # its recipe is another than the run's
    recipe = augmented(generator=generator, generator_epochs=2, top=0.5)
    plain, changed = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "changed")
    fit(recipe, plain, device="cpu")
    points = divide(build(recipe).data, recipe.fit, recipe.seed)
    seen = torch.cat([part._ids for part in (points.train, points.heldout)])  # type: ignore[attr-defined]
    assert len(seen) == 300
    split = Digits.split

    def others_inverted(self: Digits, part: Literal["train", "test"]) -> Images:
        images = split(self, part)
        x = images.take(torch.arange(len(images)))
        unseen = torch.ones(len(images), dtype=torch.bool)
        unseen[seen if part == "train" else []] = False
        x[unseen] = 255 - x[unseen]
        return ArrayImages(x.numpy(), images.labels.numpy(), images.classes)

    monkeypatch.setattr(Digits, "split", others_inverted)
    fit(recipe, changed, device="cpu")
    assert same_run(plain, changed) == []
    for one, other in zip(folders(plain), folders(changed), strict=True):
        assert same_run(one, other) == []


def test_images_of_no_class_are_labelled(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record = fit(augmented(generator="unasked", top=1.0), run, device="cpu")
    assert record.generated is not None and record.generated.n == 300
    labelled = record.generated.made["labelled"]
    _, labeller = folders(run)
    assert labelled["model"] == str(labeller.path)
    assert Path(record.generated.path).name == "samples-300-top-1.npz"


def test_what_needs_no_labels_is_taken_as_it_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    record = fit(augmented(top=1.0), run, device="cpu")
    assert record.generated is not None
    assert Path(record.generated.path).name == "samples-300.npz"
    assert not (run.path / "labellers").exists()


INNER: dict[str, Any] = {
    "wpgd": {"name": "wpgd", "attack": {"name": "wpgd", "steps": 2}},
    "lwa": "lwa",
    "free": {"name": "free", "m": 2},
    "policy-gradient": {
        "name": "adversarial",
        "attack": "fgsm",
        "loss": {"name": "policy-gradient", "growth": 0.5},
    },
}


@pytest.fixture(scope="module")
def generator_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    entry = Entry("generator", "tiny-gan", "test_types_proved:TinyGAN", "t", "t")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(installed().entries, ("generator", "tiny-gan"), entry)
        table = small().dump()
        table = {**{k: v for k, v in table.items() if k != "trainer"}, "generator": "tiny-gan"}
        run = tmp_path_factory.mktemp("generator") / "run"
        fit(resolve(table)[0], RunFolder(run), device="cpu")
    return run


@pytest.mark.parametrize("name", INNER)
def test_it_wraps_any_trainer(name: str, generator_run: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    fit(augmented(trainer=INNER[name], run=str(generator_run), top=1.0), run, device="cpu")
    plain = RunFolder(tmp_path / "plain")
    (made,) = (run.path / "generators").glob("*/samples-300.npz")
    assert Samples.read(made).record.run == str(generator_run)  # type: ignore[union-attr]
    apart = small(("fit.epochs", 2), ("generated.path", str(made)), trainer=INNER[name])
    fit(apart, plain, device="cpu")
    one, two = run.epochs(), plain.epochs()
    assert [line.loss for line in one] == [line.loss for line in two], "one mechanism, same bits"
    assert [line.step for line in one] == [line.step for line in two]


def test_it_is_wrapped_itself(generator_run: Path, tmp_path: Path) -> None:
    inner = {"name": "gan-augmented", "run": str(generator_run), "n": 50, "top": 1.0}
    awp = small(("fit.epochs", 1), trainer={"name": "awp", "trainer": inner})
    record = fit(awp, RunFolder(tmp_path / "run"), device="cpu")
    assert record.generated is not None and record.generated.n == 50
    twice = small(trainer={"name": "awp", "trainer": {**inner, "trainer": inner}})
    both = small(("generated.path", "any.npz"), trainer=inner)
    for recipe, said in ((twice, "'gan-augmented'"), (both, r"\[generated\] of the recipe")):
        with pytest.raises(BadValueError, match=f"brings its own .* so does {said}"):
            fit(recipe, RunFolder(tmp_path / said), device="cpu")


def test_a_generator_is_trained_by_the_recipe_of_its_name() -> None:
    run = augmented(("fit.labels", 100), generator="cdcgan")
    generator = build(run).trainer.generator  # type: ignore[union-attr]
    of_name = recipes.validate(start("cdcgan", "digits"))
    made = generator_recipe(run, generator)
    assert made.optimizer == of_name.optimizer and made.schedule == of_name.schedule
    assert made.optimizer != run.optimizer
    assert (made.fit.epochs, made.fit.batch_size) == (
        of_name.fit.epochs,
        of_name.fit.batch_size,
    )
    same = ("heldout", "limit", "labels")
    assert [getattr(made.fit, k) for k in same] == [getattr(run.fit, k) for k in same]
    assert (made.data, made.seed) == (run.data, run.seed)
    assert generator_recipe(run, generator, 3).fit.epochs == 3
    part = {"name": "subset", "data": {"name": "mnist"}, "classes": ["0", "1"]}
    of_mnist = generator_recipe(run.model_copy(update={"data": part}), generator)
    assert of_mnist.fit.epochs == recipes.validate(start("cdcgan", "mnist")).fit.epochs
    assert of_mnist.data == part
    unknown = generator_recipe(run, TinyGAN())
    assert (unknown.optimizer, unknown.fit) == (run.optimizer, run.fit)


class Stops(Silent):
    """Raises where something begins, or at a step of it, as Ctrl-C does."""

    def __init__(self, stage: int, step: int = -1) -> None:
        self.at, self.then, self.stages = stage, step, 0

    def stage(self, line: str) -> None:
        self.stages += 1
        if self.stages == self.at and self.then < 0:
            raise KeyboardInterrupt

    def step(self, clock: Any) -> None:
        if (self.stages, clock.step) == (self.at, self.then):
            raise KeyboardInterrupt


def test_interrupted_anywhere_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    recipe = augmented(generator="unasked")
    fit(recipe, whole, device="cpu")
    # In the generator's second epoch; before drawing; in the labeller's second epoch; before its
    # images are kept (what is there already is no stage); in the run's own second epoch.
    for stop in (Stops(1, 5), Stops(2), Stops(3, 6), Stops(2), Stops(3, 9)):
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, broken, resume=broken.recipe.exists(), device="cpu", progress=stop)
    fit(recipe, broken, resume=True, device="cpu")
    assert same_run(whole, broken) == []


def test_on_two_processes_killed_and_resumed_to_the_same_bits(tmp_path: Path) -> None:
    recipe = augmented(("fit.epochs", 3))
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    Run(recipe, whole, 2).finish()
    killed = Run(recipe, broken, 2)
    killed.kill(1, random.Random(0))
    killed.finish()
    assert same_run(whole, broken) == []


def test_a_loaded_generator_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadValueError, match="nowhere"):
        fit(augmented(run=str(tmp_path / "nowhere")), RunFolder(tmp_path / "run"), device="cpu")


def test_one_command_with_any_trainer_inside(tmp_path: Path) -> None:
    settings = [
        "trainer.generator=tiny-gan", "trainer.trainer=lwa", "trainer.n=200", "trainer.top=0.5",
        "generator_epochs=2", "model=mlp", "fit.epochs=2", "fit.limit=200",
    ]  # fmt: skip
    sets = [part for setting in settings for part in ("--set", setting)]
    out = ["--out", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(app, ["train", "--plugin", "gan-augmented", *sets, *out])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    for stage in ("generator tiny-gan, in", "drawing 200 images", "classifier that labels", "kept"):
        assert stage in said
    assert "by tiny-gan, 50 % of each batch (samples-200-top-0.5.npz" in said
    assert RunRecord.read(tmp_path / "run" / "run.json").trainer["trainer"]["name"] == "lwa"
    generator, _ = folders(RunFolder(tmp_path / "run"))
    assert len(generator.epochs()) == 2
