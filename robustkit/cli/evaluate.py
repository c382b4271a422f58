"""robustkit eval: attack a model and add the results to its run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from robustkit.cli import options
from robustkit.errors import BadValueError, UnknownNameError

if TYPE_CHECKING:
    from robustkit.interfaces import Attack, Images
    from robustkit.models.files import LoadedModel
    from robustkit.records import EvalRecord, RunFolder
    from robustkit.threat import ThreatModel


BATCH_SIZE = 128


def evaluate(
    model: Annotated[str, typer.Argument(help="A model file, a run folder, or zoo:NAME.")],
    attack: Annotated[
        str, typer.Option("--attack", help="Attacks, as a,b; each attacks every point.")
    ] = "autoattack",
    norm: Annotated[
        str, typer.Option("--norm", help="linf or l2; the model's own if absent.")
    ] = "",
    eps: Annotated[
        str, typer.Option("--eps", help="Sizes, as 4/255,8/255; the model's own if absent.")
    ] = "",
    box: options.Box = "",
    dataset: options.Dataset = "",
    data: options.DataPath = "",
    classes: options.Classes = "",
    arch: options.Arch = "",
    mean: Annotated[
        str, typer.Option("--mean", help="Normalisation of bare weights: 0.49,0.48,0.45.")
    ] = "",
    std: Annotated[str, typer.Option("--std", help="As --mean; of pixels in [0, 1].")] = "",
    unsafe: Annotated[
        bool, typer.Option("--unsafe", help="Run whatever the file holds: only if you trust it.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Test points; all if absent.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of order and attacks.")] = 0,
    settings: options.Settings = [],  # noqa: B006 - typer copies it
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Points at a time; verdicts don't depend.")
    ] = BATCH_SIZE,
    out: Annotated[
        Path | None, typer.Option("--out", help="Run folder; the model's own if absent.")
    ] = None,
    resume: options.Resume = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do again what was finished before.")
    ] = False,
    device: options.Device = "auto",
) -> None:
    """Attack a model: clean, per-attack and worst-case accuracy with 95 % intervals.

    Set an attack's options by its name: --set pgd.steps=100. Besides robustkit's own model.pt, a
    file may hold bare weights (.pt, .pth, .safetensors; give --arch), or a program of torch.export
    (.pt2), TorchScript or ONNX; such files need --dataset, --norm and --eps.
    """
    from robustkit.models.files import Given, load_model
    from robustkit.records import RunFolder
    from robustkit.report import collect, terminal

    path = find_model(model)
    of_model = [setting for setting in settings if setting.startswith("model.")]
    attacks = build_attacks(
        options.split_list(attack), [setting for setting in settings if setting not in of_model]
    )
    folder = RunFolder(out) if out else folder_of(path)
    options.require_writable(folder.path)
    given = Given(
        options.architecture(arch, of_model),
        mean=options.numbers("--mean", mean),
        std=options.numbers("--std", std),
        unsafe=unsafe,
    )
    part = test_part({"name": dataset}, data, classes) if dataset else None
    if part:
        given = replace(given, shape=part.images.shape, classes=tuple(part.images.classes))
    loaded = load_model(path, "cpu", given)
    threats = threats_of(loaded, norm, eps, model, box)
    if not part:
        own = loaded.record.get("data")
        if not own:
            raise BadValueError(f"'{model}' does not say what data it is for: give --dataset NAME")
        part = test_part(own, data, classes)
    run(
        loaded,
        part,
        attacks,
        threats,
        folder,
        name=model,
        limit=limit,
        seed=seed,
        batch_size=batch_size,
        resume=resume,
        fresh=fresh,
        device=device,
    )
    terminal.show(collect([folder.path]))
    print(f"next: robustkit report {folder.path}")


class TestPart(NamedTuple):
    """A data set's test part, and the table that makes the data set again."""

    data: dict[str, Any]
    images: Images


def test_part(own: dict[str, Any], place: str = "", classes: str = "") -> TestPart:
    """Load the test part of a data set: of its files at `place`, and only of some classes."""
    from robustkit.catalog import build
    from robustkit.recipe import override

    table = override({"data": own}, options.data_settings("", place, own))
    table, _ = options.narrowed(table, [], classes, None)
    dataset = build("dataset", table["data"])
    return TestPart(dataset.dump(), dataset.split("test"))


def run(
    loaded: LoadedModel,
    part: TestPart,
    attacks: list[Attack],
    threats: list[ThreatModel],
    folder: RunFolder,
    *,
    name: str,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    resume: bool = False,
    fresh: bool = False,
    device: str = "auto",
) -> list[EvalRecord]:
    """Attack a loaded model on a data set's test part, with progress."""
    from robustkit.cli.show import EvalProgress
    from robustkit.engine.evaluate import evaluate as attack_model
    from robustkit.engine.identity import hash_module

    images = part.images
    if images.shape != loaded.shape:
        model_shape, data_shape = ("x".join(map(str, s)) for s in (loaded.shape, images.shape))
        raise BadValueError(
            f"'{name}' is for images of {model_shape}, the data set has {data_shape}"
        )
    with EvalProgress() as progress:
        return attack_model(
            loaded.module,
            images,
            attacks,
            threats,
            folder=folder,
            model_name=name,
            model_hash=hash_module(loaded.module),
            data=part.data,
            classes=loaded.classes,
            seed=seed,
            limit=limit,
            batch_size=batch_size,
            device=device,
            resume=resume,
            fresh=fresh,
            progress=progress,
        )


def find_model(text: str) -> Path:
    """Find a model's file: zoo:NAME, a run folder, or the file itself."""
    if text.startswith("zoo:"):
        from robustkit.cli.zoo import weights_of

        return weights_of(text.removeprefix("zoo:"))
    path = Path(text)
    return path / "model.pt" if path.is_dir() else path


def folder_of(path: Path) -> RunFolder:
    """Give the run that a model lies in, or runs/eval-<stem>-<hash8> of its own."""
    from robustkit.records import RunFolder, digest

    if (path.parent / "run.json").exists():
        return RunFolder(path.parent)
    return RunFolder(Path("runs") / f"eval-{path.stem}-{digest(str(path.absolute()))}")


def build_attacks(names: list[str], settings: list[str]) -> list[Attack]:
    """Build attacks by name with their options; every setting must belong to one of them."""
    from robustkit.catalog import build
    from robustkit.recipe import override, parse_override

    if not names:
        raise BadValueError("--attack names no attack")
    tables: dict[str, Any] = {name: {"name": name} for name in names}
    for path, value in map(parse_override, settings):
        owner, _, option = path.partition(".")
        if owner not in tables or not option:
            raise UnknownNameError("attack", owner, tables, "--set is written ATTACK.option=value")
        tables[owner] = override({"data": tables[owner]}, [(f"data.{option}", value)])["data"]
    return [build("attack", table) for table in tables.values()]


def threats_of(
    loaded: LoadedModel, norm: str, eps: str, name: str, box: str = ""
) -> list[ThreatModel]:
    """Give one threat a size; what is not given comes from the model's own record, if it has one.

    The box is [0, 1] where neither says anything.
    """
    from robustkit.threat import ThreatModel, parse_eps, parse_norm

    own = loaded.record.get("threat") or {}
    norm = norm or own.get("norm", "")
    same_norm = own and parse_norm(norm) == own["norm"]
    sizes = options.split_list(eps) or ([str(own["eps"])] if same_norm else [])
    missing = [flag for flag, value in (("--norm", norm), ("--eps", sizes)) if not value]
    if missing:
        raise BadValueError(f"'{name}' does not say its threat model: give {' and '.join(missing)}")
    low, high = options.box(box) if box else (float(own.get("low", 0)), float(own.get("high", 1)))
    return [ThreatModel(parse_norm(norm), parse_eps(size), low, high) for size in sizes]
