"""robustkit eval: attack a model and add the results to its run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustkit.cli import costs, fixed, options
from robustkit.cli.sources import TestPart, build_attacks, find_model, given_by, load
from robustkit.engine import server
from robustkit.errors import BadValueError

if TYPE_CHECKING:
    from robustkit.engine.blocks import Ids
    from robustkit.engine.limits import Limits
    from robustkit.interfaces import Attack
    from robustkit.models.files import LoadedModel
    from robustkit.records import EvalRecord, RunFolder
    from robustkit.threat import ThreatModel

DEFAULT = "autoattack"


def evaluate(
    model: options.Model,
    attack: Annotated[
        str | None,
        typer.Option(
            "--attack", help="Attacks, as a,b; each attacks every point. autoattack if absent."
        ),
    ] = None,
    shown: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Show the images of this set instead (see robustkit attack); data, points and"
            " threat are its own.",
        ),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            help="What errors cost: a CSV of the classes, or a label metric by its name.",
        ),
    ] = "",
    norm: options.Norm = "",
    eps: options.Sizes = "",
    box: options.Box = "",
    quantize: options.Quantize = None,
    target: options.Target = "",
    dataset: options.Dataset = "",
    data: options.DataPath = "",
    classes: options.Classes = "",
    arch: options.Arch = "",
    mean: options.Mean = "",
    std: options.Std = "",
    unsafe: options.Unsafe = False,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    settings: options.Settings = [],  # noqa: B006 - typer copies it
    batch_size: options.BatchSize = options.BATCH_SIZE,
    processes: options.Processes = 1,
    budget: options.Budget = "",
    precision: options.Precision = None,
    eot: Annotated[
        int,
        typer.Option(
            "--eot",
            min=1,
            metavar="PASSES",
            help="Attacks see the mean of so many passes as one: for randomised models, as 20.",
        ),
    ] = 1,
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
    from robustkit.records import RunFolder
    from robustkit.report import collect, terminal

    if processes > 1:
        server.ready()
    limits = options.limits(budget, precision)
    if shown and limits.set:
        raise BadValueError("--budget and --precision are for attacks; --from shows all of a set")
    made = fixed.read(shown, attack, settings) if shown else None
    named = costs.find(metric) if metric else None
    names = options.split_list(DEFAULT if attack is None else attack)
    attacks = [] if made else build_attacks(names, settings)
    folder = RunFolder(out) if out else folder_of(find_model(model))
    options.require_writable(folder.path)
    own: dict[str, Any] = {"name": dataset} if dataset else {}
    record = made.record if made else None
    if shown and record:
        fixed.require_agreement(shown, record, dataset, classes, norm, eps, box, quantize, target)
        own, classes = record.data, ""
    given = given_by(arch, settings, mean, std, unsafe)
    loaded, part = load(model, given, own, data, classes)
    if attacks and not norm and all(each.norms == ("none",) for each in attacks):
        norm = "none"
    threats = (
        [record.threat.model()] if record else threats_of(loaded, norm, eps, model, box, quantize)
    )
    if target:
        threats = [aimed(threat, target, part.images.classes) for threat in threats]
    if named:
        named.metric.reordered(part.images.classes)  # refused before the attacks, not after
    records = run(
        loaded,
        part,
        [fixed.attack_of(made, part.images)] if made else attacks,
        threats,
        folder,
        name=model,
        limit=limit,
        ids=made.ids if made else None,
        seed=seed,
        batch_size=batch_size,
        processes=1 if made else processes,  # showing a set is no work to share
        limits=limits,
        eot=eot,
        resume=resume,
        fresh=fresh,
        device=device,
    )
    terminal.show(collect([folder.path]))
    if named:
        costs.add(folder, records, named)
    print(f"next: robustkit report {folder.path}")


def run(
    loaded: LoadedModel,
    part: TestPart,
    attacks: list[Attack],
    threats: list[ThreatModel],
    folder: RunFolder,
    *,
    name: str,
    limit: int | None = None,
    ids: Ids | None = None,
    seed: int = 0,
    batch_size: int = options.BATCH_SIZE,
    processes: int = 1,
    limits: Limits | None = None,
    eot: int = 1,
    resume: bool = False,
    fresh: bool = False,
    device: str = "auto",
) -> list[EvalRecord]:
    """Attack a loaded model on a data set's test part, with progress."""
    from robustkit.cli.show import EvalProgress
    from robustkit.engine.evaluate import evaluate as attack_model
    from robustkit.engine.identity import hash_module
    from robustkit.engine.limits import NO_LIMITS

    with EvalProgress() as progress:
        return attack_model(
            loaded.module,
            part.images,
            attacks,
            threats,
            folder=folder,
            model_name=name,
            model_hash=hash_module(loaded.module),
            data=part.data,
            classes=loaded.classes,
            seed=seed,
            limit=limit,
            ids=ids,
            batch_size=batch_size,
            eot=eot,
            device=device,
            processes=processes,
            rebuild=loaded.again,
            limits=limits or NO_LIMITS,
            resume=resume,
            fresh=fresh,
            progress=progress,
        )


def aimed(threat: ThreatModel, target: str, classes: Sequence[str]) -> ThreatModel:
    """Give a threat a target by its name or number. Raises UnknownNameError."""
    from dataclasses import replace

    from robustkit.engine.targets import target_name

    return replace(threat, target=target_name(target, classes))


def folder_of(path: Path) -> RunFolder:
    """Give the run that a model lies in, or runs/eval-<stem>-<hash8> of its own."""
    from robustkit.records import RunFolder, digest

    if (path.parent / "run.json").exists():
        return RunFolder(path.parent)
    return RunFolder(Path("runs") / f"eval-{path.stem}-{digest(str(path.absolute()))}")


def threats_of(
    loaded: LoadedModel,
    norm: str,
    eps: str,
    name: str,
    box: str = "",
    bits: int | None = None,
) -> list[ThreatModel]:
    """Give one threat a size; what is not given comes from the model's own record, if it has one.

    The box is [0, 1] where neither says anything.
    """
    from robustkit.threat import ThreatModel, parse_norm

    own = loaded.record.get("threat") or {}
    norm = norm or own.get("norm", "")
    same_norm = own and parse_norm(norm) == own["norm"]
    unbounded = norm and parse_norm(norm) == "none"
    sizes = options.sizes(eps or (str(own["eps"]) if same_norm else "1" if unbounded else ""))
    missing = [flag for flag, value in (("--norm", norm), ("--eps", sizes)) if not value]
    if missing:
        raise BadValueError(f"'{name}' does not say its threat model: give {' and '.join(missing)}")
    low, high = options.box(box) if box else (float(own.get("low", 0)), float(own.get("high", 1)))
    return [ThreatModel(parse_norm(norm), size, low, high, bits) for size in sizes]
