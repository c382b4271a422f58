"""robustkit generate, as a user runs it on the embedded digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from robustkit.catalog import build
from robustkit.cli import app
from robustkit.data.images import ArrayImages
from robustkit.engine import generate as engine
from robustkit.engine import sampling
from robustkit.engine.fit import fit
from robustkit.engine.generate import contact_sheet
from robustkit.engine.generated import pool
from robustkit.engine.loop import Silent
from robustkit.engine.resolve import resolve, start
from robustkit.engine.sampling import as_pixels, load_generator
from robustkit.errors import BadValueError
from robustkit.interfaces import Generated
from robustkit.records import EpochLine, RunFolder, RunRecord
from robustkit.samples import Samples

TINY = ["--set", "generator.width=4", "--set", "generator.code=5", "--set", "fit.limit=200"]


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["generate", *map(str, arguments)])


def run(*arguments: str | Path) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: str | Path) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.output
    return result.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a conditional generator was trained, and 300 images drawn."""
    folder = tmp_path_factory.mktemp("generate")
    run(
        "--plugin", "cdcgan", "--dataset", "digits", "--epochs", "2", "--n", "300", "--walk",
        "--seed", "3", "--out", folder / "samples.npz", "--run", folder / "run", *TINY,
    )  # fmt: skip
    return folder


def test_the_file_holds_the_generators_images_and_where_they_come_from(made: Path) -> None:
    there, trained = Samples.read(made / "samples.npz"), load_generator(made / "run/generator.pt")
    drawn = trained.draw(300, seed=3)
    assert np.array_equal(there.images.take(torch.arange(300)).numpy(), as_pixels(drawn.x))
    assert there.images.labels.tolist() == [i % 10 for i in range(300)]
    record = there.record
    assert record is not None and record.labelled is None
    assert record.generator["name"] == "cdcgan" and record.generator["width"] == 4
    assert record.parts_hash == trained.hash and record.seed == 3
    assert record.data["name"] == "digits" and record.n_train == 200
    assert record.run == str(made / "run") and record.provenance.seconds > 0


def test_the_sheets_show_a_class_a_row_and_ways_between_codes(made: Path) -> None:
    there = Samples.read(made / "samples.npz").images
    sheet = np.asarray(Image.open(made / "samples.png").convert("RGB"))
    ways = np.asarray(Image.open(made / "samples-walk.png").convert("RGB"))
    assert sheet.shape == ways.shape == (651, 651, 3)
    for row, column in ((0, 0), (3, 1), (9, 9)):
        tile = sheet[1 + 65 * row : 65 * (row + 1), 1 + 65 * column : 65 * (column + 1), 0]
        image = there.take(torch.tensor([10 * column + row]))[0, 0].numpy()
        assert np.array_equal(tile, image.repeat(8, 0).repeat(8, 1))
    assert not np.array_equal(ways[1:65, 1:65], ways[1:65, 586:650])


def test_from_a_run_or_its_file_draws_the_same_images_whatever_their_number(made: Path) -> None:
    first = Samples.read(made / "samples.npz").images.take(torch.arange(20))
    for source, n in ((made / "run", 20), (made / "run/generator.pt", 515)):
        run("--from", source, "--n", str(n), "--out", made / f"{n}.npz")
        again = Samples.read(made / f"{n}.npz")
        assert len(again) == n
        assert torch.equal(again.images.take(torch.arange(20)), first)
    run("--from", made / "run", "--n", "20", "--seed", "4", "--out", made / "other.npz")
    assert not torch.equal(Samples.read(made / "other.npz").images.take(torch.arange(20)), first)


def test_a_file_that_is_there_is_kept_unless_asked(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.npz"
    run("--from", made / "run", "--n", "20", "--out", out)
    before = out.stat().st_mtime_ns
    assert "is there already" in refused("--from", made / "run", "--n", "20", "--out", out)
    run("--from", made / "run", "--n", "20", "--out", out, "--resume")
    assert out.stat().st_mtime_ns == before
    problem = refused("--from", made / "run", "--n", "21", "--out", out, "--resume")
    assert "holds other images" in problem
    run("--from", made / "run", "--n", "21", "--out", out, "--fresh")
    assert len(Samples.read(out)) == 21


def test_images_of_no_class_have_no_label_and_ten_rows(tmp_path: Path) -> None:
    out = tmp_path / "s.npz"
    result = run(
        "--plugin", "dcgan", "--epochs", "1", "--n", "120", "--out", out,
        "--run", tmp_path / "run", *TINY,
    )  # fmt: skip
    assert "120 images without labels by 'dcgan'" in result.stdout
    there = Samples.read(out)
    assert there.images.labels.eq(-1).all() and len(there.images.classes) == 10
    assert Image.open(tmp_path / "s.png").size == (651, 651)


def test_images_alone_train_what_needs_no_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without class folders, from one to a sample file that a classifier labels."""
    monkeypatch.setenv("ROBUSTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "own"
    own.mkdir()
    digits = build("dataset", "digits").split("train")
    for i, x in enumerate(digits.take(torch.arange(150)).numpy()):
        Image.fromarray(x[0]).save(own / f"{i}.png")
    from_own = ("--dataset", "folder", "--data", own, "--epochs", "1", "--out", "s.npz", *TINY)
    for name in ("dcgan", "vae"):
        run("--plugin", name, "--n", "20", "--run", name, *from_own, "--fresh")
        there = Samples.read(Path("s.npz"))
        assert there.images.classes == () and len(there) == 20
        record = RunRecord.read(Path(name) / "run.json")
        assert (record.n_train, record.n_heldout, record.classes) == (120, 0, ())
        with pytest.raises(BadValueError, match="20 of 20 images have no label"):
            pool(Generated(Path("s.npz"), 0.5), digits)
    again = Path("again.npz")
    run("--from", "dcgan", "--n", "20", "--out", again)
    sift = ["sift", str(again), "--label-with", "zoo:digits-policy-gradient", "--out", "k.npz"]
    assert CliRunner().invoke(app, sift).exit_code == 0
    labelled = Samples.read(Path("k.npz")).images
    assert labelled.classes == digits.classes and labelled.labels.ge(0).all()

    problem = refused("--plugin", "cdcgan", "--run", "c", *from_own, "--fresh")
    assert "'cdcgan' learns from labels, but no point of 'folder' has one" in problem
    assert "dcgan, vae" in problem and "sgan" not in problem
    assert "fit.labels is 100, but" in refused(
        "--plugin", "sgan", "--run", "d", *from_own, "--fresh"
    )
    train = ["train", "--plugin", "standard", "--dataset", "folder", "--data", str(own)]
    result = CliRunner().invoke(app, train)
    assert result.exit_code == 2 and "a classifier learns from labels" in result.stderr


def test_interrupted_drawing_leaves_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(x: torch.Tensor) -> Any:
        if interrupted.calls:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        interrupted.calls += 1  # type: ignore[attr-defined]
        return as_pixels(x)

    interrupted.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(engine, "as_pixels", interrupted)
    monkeypatch.setattr(sampling, "BLOCK", 8)
    result = invoke("--from", made / "run", "--n", "20", "--out", tmp_path / "s.npz")
    assert result.exit_code == 130
    assert list(tmp_path.iterdir()) == []


class Stop(Silent):
    def epoch(self, line: EpochLine) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_training_is_gone_on_with(tmp_path: Path) -> None:
    settings = [("generator.width", 4), ("generator.code", 5), ("fit.limit", 200)]
    recipe, _ = resolve(start("cdcgan", "digits"), [*settings, ("fit.epochs", 2)])
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, RunFolder(broken), device="cpu", progress=Stop())
    assert len(RunFolder(broken).epochs()) == 1
    whole = ["--plugin", "cdcgan", "--dataset", "digits", "--epochs", "2", *TINY]
    run(*whole, "--n", "9", "--run", tmp_path / "whole", "--out", tmp_path / "whole.npz")
    assert "already holds a run" in refused(*whole, "--run", broken, "--out", tmp_path / "b.npz")
    run("--resume", "--n", "9", "--run", broken, "--out", tmp_path / "b.npz")
    first, second = (Samples.read(tmp_path / f"{name}.npz") for name in ("whole", "b"))
    assert first.digest == second.digest


def test_train_says_how_to_draw(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["train", "--plugin", "dcgan", "--epochs", "1", "--out", str(tmp_path / "run"), *TINY],
    )
    assert result.exit_code == 0, result.output
    assert f"next: robustkit generate --from {tmp_path / 'run'}" in result.stdout
    assert "robustkit eval" not in result.stdout
    assert "train 0.0 %" not in result.stderr and "diversity" in result.stderr


def test_a_report_of_a_generators_run_is_written(
    made: Path, recwarn: pytest.WarningsRecorder
) -> None:
    result = CliRunner().invoke(app, ["report", str(made / "run")])
    assert result.exit_code == 0, (result.output, result.exception)
    assert "cdcgan" in (made / "run" / "report.html").read_text("utf-8")
    assert not [str(w.message) for w in recwarn if "No artists" in str(w.message)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plugin", "dcgan"], "--out SAMPLES.npz"),
        (["--plugin", "dcgan", "--out", "s.npz", "--n", "0"], "--n 0 is no number of images"),
        (["--plugin", "dcgan", "--out", "s"], "cannot write 's'"),
        (["--out", "s.npz"], "--plugin NAME, or --from RUN"),
        (["--plugin", "dcgam", "--out", "s.npz"], "dcgan"),
        (["--plugin", "trades", "--out", "s.npz"], "'trades' is the recipe of a classifier"),
        (["--from", "nowhere", "--out", "s.npz"], "there is no generator 'nowhere'"),
        (["--from", ".", "--out", "s.npz"], "'.' is no run folder"),
        (["--from", "x", "--plugin", "dcgan", "--out", "s.npz"], "leave out --plugin, or --from"),
        (["--from", "x", "--set", "a.b=1", "--out", "s.npz"], "leave out --set, or --from"),
        (["--from", "x", "--imbalance", "0.0", "--out", "s.npz"], "leave out --imbalance"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_generator_is_refused(made: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.pt"
    text.write_text("no generator")
    assert "damaged" in refused("--from", text, "--out", tmp_path / "s.npz")
    checkpoint = made / "run/checkpoint.pt"
    assert "holds no generator" in refused("--from", checkpoint, "--out", tmp_path / "s.npz")
    classifier = RunFolder(tmp_path / "classifier")
    recipe, _ = resolve(
        {"trainer": "standard", "model": "mlp", "select": {"attack": "fgsm"}},
        [("fit.epochs", 1), ("fit.limit", 100)],
    )
    fit(recipe, classifier, device="cpu")
    problem = refused("--from", classifier.path, "--out", tmp_path / "s.npz")
    assert "is the run of a classifier" in problem
    assert "holds no generator" in refused("--from", classifier.model, "--out", tmp_path / "s.npz")


def test_a_sheet_of_few_images_leaves_places_white() -> None:
    pixels = np.zeros((4, 1, 64, 64), np.uint8)
    images = ArrayImages(pixels, np.array([1, 1, 2, -1]), ["a", "b", "c"])
    sheet = contact_sheet(images)[..., 0]
    assert sheet.shape == (2 * 65 + 1, 2 * 65 + 1)
    assert [sheet[32, 32], sheet[32, 97], sheet[97, 32], sheet[97, 97]] == [0, 0, 0, 255]
