"""Training with generated points: their share of each batch, their order, and where they come from."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fit import Breaks
from test_kill_trainers import TRAINERS
from torch import Tensor
from training import SMALL, Run, same_run, small, weights
from typer.testing import CliRunner

from robustkit import recipe as recipes
from robustkit import samples
from robustkit.catalog import installed
from robustkit.cli import app
from robustkit.data import batches as resident
from robustkit.data.batches import DeviceImages, SharedBatches
from robustkit.data.images import ArrayImages
from robustkit.data.mixture import Mixture
from robustkit.engine.fit import fit
from robustkit.engine.fitting import Fitting
from robustkit.engine.rng import PointRng
from robustkit.errors import BadValueError, RobustkitError, UnknownNameError
from robustkit.interfaces import Batch, Clock
from robustkit.records import Provenance, RunFolder, RunRecord
from robustkit.report.collect import collect
from robustkit.report.summary import facts
from robustkit.samples import SampleRecord

DIGITS = [str(k) for k in range(10)]
MADE_BY = SampleRecord(
    generator={"name": "dcgan"},
    data={"name": "digits"},
    seed=3,
    provenance=Provenance(versions={}, device="cpu", started="2026-01-01T00:00:00Z", seconds=1.0),
)


def pixels(n: int, side: int = 8, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (n, 1, side, side), np.uint8)


def images(n: int, seed: int = 0, classes: int = 4) -> ArrayImages:
    return ArrayImages(pixels(n, seed=seed), np.arange(n) % classes, DIGITS[:classes])


def mixture(real: int, generated: int, share: float) -> Mixture:
    return Mixture(DeviceImages(images(real)), images(generated, seed=1), share)


def batches(images: Mixture, size: int, *others: int, seed: int = 0) -> SharedBatches:
    return SharedBatches(images, images.share, size, *(others or (seed,)))


def sample_file(path: Path, n: int = 120, classes: list[str] = DIGITS, seed: int = 0) -> Path:
    labels = np.arange(n) % len(classes)
    samples.write(path, [pixels(n, seed=seed)], labels, classes, MADE_BY)
    return path


# How a batch is made up


def test_a_batch_of_ten_at_a_share_of_three_tenths_by_hand() -> None:
    steps = batches(mixture(20, 5, 0.3), 10, seed=0).steps(0)
    made = [(ids >= 20).tolist() for ids in steps]
    # 7 real points and 3 generated ones; the last step has 6 and round(6 * 3 / 7).
    assert [(row.count(False), row.count(True)) for row in made] == [(7, 3), (7, 3), (6, 3)]
    assert made[0] == [i in (3, 6, 9) for i in range(10)]


@settings(max_examples=40, deadline=None)
@given(
    real=st.integers(2, 60),
    generated=st.integers(1, 90),
    size=st.integers(2, 40),
    share=st.floats(0.05, 0.95),
    world=st.integers(1, 3),
)
def test_shares_orders_and_processes(
    real: int, generated: int, size: int, share: float, world: int
) -> None:
    mixed = mixture(real, generated, share)
    if round(share * size) in (0, size):
        with pytest.raises(BadValueError, match="generated.share .* each batch needs"):
            batches(mixed, size, 0)
        return
    epochs = [list(batches(mixed, size, 7).epoch(epoch)) for epoch in range(4)]
    drawn: list[int] = []
    for epoch in epochs:
        ids = torch.cat([batch.ids for batch in epoch])
        assert sorted(ids[ids < real].tolist()) == list(range(real)), "a real point once an epoch"
        drawn += ids[ids >= real].tolist()
        for batch in epoch:
            assert len(batch) <= size
            assert batch.source.equal((batch.ids >= real).long())
            made, k = int(batch.source.sum()), int((1 - batch.source).sum())
            assert made == min(round(share * size), max(1, round(k * share / (1 - share))))
            if made > 1:
                assert abs(made - share * len(batch)) < 1
    for turn in range(0, len(drawn), generated):
        once = drawn[turn : turn + generated]
        assert len(set(once)) == len(once), "a generated point comes again before all have come"
    parts = [list(batches(mixed, size, 7, r, world).epoch(3)) for r in range(world)]
    for whole, *shares in zip(epochs[3], *parts, strict=True):
        for name in ("x", "y", "ids", "source", "place"):
            joined = torch.cat([getattr(part, name) for part in shares])
            assert joined.equal(getattr(whole, name))
        for part in shares:
            fair = int(whole.source.sum()) * len(part) / len(whole)
            assert abs(int(part.source.sum()) - fair) <= 1


def test_orders_are_of_the_seed_and_differ_from_round_to_round() -> None:
    def drawn(seed: int) -> list[int]:
        made = batches(mixture(30, 10, 0.5), 20, seed)
        return [
            i for epoch in range(2) for ids in made.steps(epoch) for i in ids[ids >= 30].tolist()
        ]

    first = drawn(0)
    assert len(first) == 60
    rounds = [first[i : i + 10] for i in range(0, 60, 10)]
    assert len({tuple(r) for r in rounds}) == 6
    assert drawn(0) == first != drawn(1)


def test_an_epoch_of_real_points_has_the_order_that_it_has_without_others() -> None:
    alone = DeviceImages(images(30))
    plain = torch.cat(list(resident.Batches(alone, 10, 5).steps(2)))
    mixed = torch.cat(list(batches(mixture(30, 10, 0.5), 10, 5).steps(2)))
    assert mixed[mixed < 30].equal(plain)


def test_points_are_those_of_their_ids_resident_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.tensor([29, 30, 0, 39])
    there = mixture(30, 10, 0.5).batch(ids)
    monkeypatch.setattr(resident, "RESIDENT", 9 * 64)
    read = mixture(30, 10, 0.5)
    assert read.generated._resident is None
    assert read.batch(ids).x.equal(there.x)
    rows = torch.stack(
        [images(30).take(torch.tensor([29, 0])), images(10, 1).take(torch.tensor([0, 9]))], 1
    )
    assert there.x.equal(rows.flatten(0, 1) / 255)
    assert there.y.tolist() == [1, 0, 0, 1]
    assert there.source.tolist() == [0, 1, 0, 1]


def test_mixup_takes_a_point_of_the_same_kind() -> None:
    mixed, ids = mixture(30, 1000, 0.5), torch.arange(1030)
    others = mixed.others(ids, PointRng(0, "mixup", ids), at=0)
    assert (others[:30] < 30).all() and (others[30:] >= 30).all()
    assert len(others[30:].unique()) > 500
    alone = DeviceImages(images(30))
    assert alone.others(ids[:30], PointRng(0, "mixup", ids[:30]), at=0).equal(others[:30])


# Every trainer

QUICK = {"name": "pgd", "steps": 2}
POLICY = {"name": "policy-gradient", "growth": 0.5, "balance": True}
METHODS: dict[str, dict[str, Any]] = {
    **{name: {"name": name, **options} for name, options in TRAINERS.items()},
    "lwa": {"name": "lwa"},
    "lwa-representation": {"name": "lwa-representation"},
    "goodfellow": {"name": "goodfellow"},
    "wpgd": {"name": "wpgd", "attack": {"name": "wpgd", "steps": 2}},
    "policy-gradient": {"name": "adversarial", "attack": "fgsm", "loss": POLICY},
}


def test_every_trainer_is_here() -> None:
    named = {table["name"] for table in METHODS.values()}
    missing = {e.name for e in installed().of_kind("trainer")} - named - {"gan-augmented"}
    assert not missing


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_file(tmp_path_factory.mktemp("made") / "samples.npz")


def recipe(made: Path, *more: tuple[str, Any], share: float = 0.3, **sections: Any) -> Any:
    return small(
        ("generated.path", str(made)), ("generated.share", share), ("fit.augment", ["flip"]),
        *more, **sections,
    )  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_each_trains_on_both_in_their_share(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Batch] = []
    steps = Fitting.step

    def spied(self: Fitting, batch: Batch, clock: Clock) -> Tensor:
        seen.append(batch)
        heldout = self.heldout.points
        assert type(heldout) is DeviceImages and len(heldout) == 100
        assert self.kit.points == 320 and int(self.kit.counts.sum()) == 200
        return steps(self, batch, clock)

    monkeypatch.setattr(Fitting, "step", spied)
    mixed = recipe(made, ("fit.epochs", 2), trainer=METHODS[name])
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    record = fit(mixed, one, device="cpu")
    assert all(math.isfinite(line.loss) for line in one.epochs())
    # 50 points are 15 and 35; 200 real ones take six steps of 33 or 34, beside 14 or 15.
    epoch = [n for n in [(34, 15)] * 2 + [(33, 14)] * 4 for _ in range(METHODS[name].get("m", 1))]
    assert [(int((b.source == 0).sum()), int((b.source == 1).sum())) for b in seen] == 2 * epoch
    assert (record.n_train, record.n_heldout) == (200, 100)
    assert record.generated is not None and record.generated.n == 120
    fit(mixed, two, device="cpu")
    assert same_run(one, two) == []


@pytest.mark.parametrize(
    ("name", "processes"), [("policy-gradient", 1), ("free", 2), ("policy-gradient", 2)]
)
def test_killed_and_resumed_to_the_same_bits(
    name: str, processes: int, made: Path, tmp_path: Path
) -> None:
    mixed = recipe(made, ("fit.epochs", 3), trainer=METHODS[name])
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    Run(mixed, whole, processes).finish()
    killed = Run(mixed, broken, processes)
    killed.kill(1, random.Random(name))
    killed.finish()
    assert same_run(whole, broken) == []
    if name == "policy-gradient":
        wrong = weights(whole)["work"]["parts"]["loss"]["wrong"]
        assert wrong[200:320].any(), "generated points have a history, too"
        assert wrong[:200].any() and wrong[320] == 0


@pytest.mark.parametrize("name", ["adversarial", "free", "awp"])
def test_two_processes_train_as_one(name: str, made: Path, tmp_path: Path) -> None:
    mixed = recipe(
        made, ("model.dropout", 0.0), ("fit.epochs", 2), ("fit.mixup", 0.5),
        ("optimizer", {"name": "sgd", "lr": 0.05}), trainer=METHODS[name],
    )  # fmt: skip
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    fit(mixed, one, device="cpu")
    Run(mixed, two, 2).finish()
    first, second = weights(one)["work"]["model"], weights(two)["work"]["model"]
    for key, weight in first.items():
        torch.testing.assert_close(second[key], weight, rtol=1e-4, atol=1e-5)


def test_the_statistics_are_those_of_real_points(made: Path, tmp_path: Path) -> None:
    mixed, plain = RunFolder(tmp_path / "mixed"), RunFolder(tmp_path / "plain")
    fit(recipe(made, ("fit.epochs", 1)), mixed, device="cpu")
    fit(small(("fit.epochs", 1)), plain, device="cpu")
    stats = [torch.load(f.model, weights_only=True) for f in (mixed, plain)]
    assert stats[0]["mean"] == stats[1]["mean"] and stats[0]["std"] == stats[1]["std"]
    assert same_run(mixed, plain) != []


# Where they come from


def pool_of(path: Path, tmp_path: Path, **sections: Any) -> Fitting:
    from robustkit.engine.processes import launch
    from robustkit.engine.resolve import build

    made = recipe(path, **sections)
    return launch(
        lambda processes: Fitting(processes, made, build(made), RunFolder(tmp_path / "r")), (),
        processes=1, device="cpu", precision="32",
    )  # fmt: skip


def test_classes_are_found_by_name(tmp_path: Path) -> None:
    path = sample_file(tmp_path / "s.npz", 6, ["7", "0", "3"])
    work = pool_of(path, tmp_path)
    assert work.pool is not None
    assert work.pool.images.labels.tolist() == [7, 0, 3, 7, 0, 3]
    assert work.pool.images.classes == work.points.train.classes
    assert work.pool.images.take(torch.arange(6)).equal(torch.from_numpy(pixels(6)))


def test_published_files_count_classes_by_index(tmp_path: Path) -> None:
    path = tmp_path / "1m.npz"
    np.savez(path, image=pixels(20).transpose(0, 2, 3, 1), label=np.arange(20) % 10)
    work = pool_of(path, tmp_path)
    assert work.pool is not None
    assert work.pool.images.labels.tolist() == [k % 10 for k in range(20)]
    assert work.pool.record.made == {}


def test_a_folder_of_class_folders_is_taken_whole(tmp_path: Path) -> None:
    from PIL import Image

    for k, name in enumerate(["3", "8"]):
        (tmp_path / "made" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(pixels(6)[3 * k + i, 0]).save(tmp_path / "made" / name / f"{i}.png")
    work = pool_of(tmp_path / "made", tmp_path)
    assert work.pool is not None
    assert work.pool.images.labels.tolist() == [3, 3, 3, 8, 8, 8]
    assert work.pool.images.take(torch.arange(6)).equal(torch.from_numpy(pixels(6)))


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "kind", "said"),
    [
        ({"x": pixels(5, 9), "y": np.zeros(5, int)}, BadValueError, "1 × 9 × 9, and .* 1 × 8 × 8"),
        ({"x": pixels(5), "y": np.array([0, -1, 1, -1, 2])}, BadValueError, "2 of 5 .* sift --label-with"),
        ({"x": pixels(5)}, BadValueError, "5 of 5 images have no label"),
        ({"x": pixels(5), "y": np.full(5, 10)}, BadValueError, "label 10 lies outside the 10"),
        ({"x": pixels(2), "y": np.array([0, 1]), "classes": ["1", "cat"]}, UnknownNameError, "unknown class 'cat'"),
        ({"z": pixels(2)}, BadValueError, "holds no array 'x'"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_said_in_a_line(
    arrays: dict[str, Any], kind: type[RobustkitError], said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "bad.npz", **arrays)
    with pytest.raises(kind, match=said) as error:
        fit(recipe(path), RunFolder(tmp_path / "run"), device="cpu")
    assert "\n" not in str(error.value) and "bad.npz" in str(error.value)


def test_a_missing_file_and_a_share_of_no_point(made: Path, tmp_path: Path) -> None:
    for wrong, said in (
        (recipe(made.with_name("sample.npz")), "does not exist; did you mean 'samples.npz'"),
        (recipe(made, share=0.005), "generated.share 0.005 of fit.batch_size 50 is 0 points"),
    ):
        with pytest.raises(BadValueError, match=said):
            fit(wrong, RunFolder(tmp_path / "run"), device="cpu")
        (tmp_path / "run" / "recipe.toml").unlink()
    for share in (0, 1, 1.5):
        with pytest.raises(BadValueError, match="generated.share"):
            recipe(made, share=share)
    with pytest.raises(BadValueError, match="needs the key 'generated.path'"):
        small(("generated.share", 0.5))
    with pytest.raises(UnknownNameError, match="generated.shares.*did you mean 'generated.share'"):
        small(("generated.path", "x"), ("generated.shares", 0.5))


def test_generators_are_trained_on_real_points(made: Path, tmp_path: Path) -> None:
    table = {**{k: v for k, v in SMALL.items() if k != "trainer"}, "generator": "dcgan"}
    table["generated"] = {"path": str(made)}
    with pytest.raises(BadValueError, match=r"\[generated\] is for trainers"):
        fit(recipes.validate(table), RunFolder(tmp_path / "run"), device="cpu")


# From the command line


def test_one_command_a_resume_and_a_changed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample_file(tmp_path / "samples.npz")
    out = tmp_path / "run"
    (tmp_path / "small.toml").write_text(recipes.write(small(("fit.epochs", 2))), "utf-8")
    command = ["train", "--recipe", "small.toml", "--out", str(out), "--device", "cpu"]
    result = CliRunner().invoke(
        app, [*command, "--generated", "samples.npz", "--generated-share", "0.25"]
    )
    assert result.exit_code == 0, result.output
    digest = samples.Samples.read(Path("samples.npz")).digest
    words = f"120 by dcgan, 25 % of each batch (samples.npz, {digest})"
    assert f"beside 200 real points: {words}" in result.output
    record = RunRecord.read(out / "run.json")
    assert record.generated is not None and record.generated.made["seed"] == 3
    assert dict(facts(collect([out])[0]))["Generated points"] == words

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    again = recipes.validate(recipes.read(out / "recipe.toml"))
    assert again.generated is not None and again.generated.path == str(tmp_path / "samples.npz")
    broken = RunFolder(tmp_path / "broken")
    with pytest.raises(KeyboardInterrupt):
        fit(again, broken, device="cpu", progress=Breaks(6))
    sample_file(tmp_path / "samples.npz", seed=1)
    with pytest.raises(BadValueError, match=f"samples.npz' has changed .* was {digest}"):
        fit(again, broken, resume=True, device="cpu")
    sample_file(tmp_path / "samples.npz")
    fit(again, broken, resume=True, device="cpu")
    assert same_run(RunFolder(out), broken) == []
