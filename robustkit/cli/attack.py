"""robustkit attack: make a fixed set of adversarial images on one model, to be shown to others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustkit.cli import options
from robustkit.cli.evaluate import threats_of
from robustkit.cli.sources import build_attacks, given_by, load
from robustkit.engine import server
from robustkit.errors import BadValueError

if TYPE_CHECKING:
    from robustkit.sets import SetRecord


def attack(
    model: options.Model,
    attack: Annotated[str, typer.Option("--attack", help="The attack that makes the set.")] = "",
    norm: options.Norm = "",
    eps: Annotated[
        str, typer.Option("--eps", help="One size, as 8/255; the model's own if absent.")
    ] = "",
    box: options.Box = "",
    quantize: options.Quantize = None,
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
    out: Annotated[Path | None, typer.Option("--out", help="The set's file, SET.npz.")] = None,
    resume: options.Resume = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Replace the file if it is there.")
    ] = False,
    device: options.Device = "auto",
) -> None:
    """Make a set of adversarial images on one model, to be shown to others by eval --from.

    Every test point is attacked, also those that the model gets wrong, and the search goes on where
    the model is fooled already: for others that makes the images stronger.
    """
    if processes > 1:
        server.ready()
    from robustkit.cli.show import EvalProgress
    from robustkit.engine.craft import craft
    from robustkit.engine.identity import hash_module

    attacks = build_attacks(options.split_list(attack), settings)
    if len(attacks) > 1:
        raise BadValueError(f"--attack {attack} is {len(attacks)} attacks; a set is made by one")
    if out is None:
        raise BadValueError("say where the set goes: --out SET.npz")
    if out.is_dir():
        raise BadValueError(f"cannot write '{out}': it is a folder; give a file, SET.npz")
    options.require_writable(out.parent)
    given = given_by(arch, settings, mean, std, unsafe)
    own = {"name": dataset} if dataset else {}
    loaded, part = load(model, given, own, data, classes)
    threats = threats_of(loaded, norm, eps, model, box, quantize)
    if len(threats) > 1:
        raise BadValueError(f"--eps {eps} is {len(threats)} sizes; a set is made at one")
    with EvalProgress() as progress:
        made = craft(
            loaded.module,
            part.images,
            attacks[0],
            threats[0],
            out=out,
            model_name=model,
            model_hash=hash_module(loaded.module),
            data=part.data,
            classes=loaded.classes,
            seed=seed,
            limit=limit,
            batch_size=batch_size,
            device=device,
            processes=processes,
            rebuild=loaded.again,
            resume=resume,
            fresh=fresh,
            progress=progress,
        )
    if made.record:
        print_result(made.record)
    print(f"{out}\nnext: robustkit eval OTHER --from {out}")


def print_result(record: SetRecord) -> None:
    """Say what the images do to the model that they were made on."""
    from robustkit.report.words import component, threat_text, with_interval

    fooled = record.clean.count - record.robust.count
    print(
        f"{component(record.attack)}, {threat_text(record.threat)}, on {record.robust.n} points of"
        f" {component(record.data)}: fools {record.model} on {fooled} of the {record.clean.count}"
        f" that it gets right; accuracy {with_interval(record.robust)}"
    )
    for line in (*record.remarks, *record.warnings):
        print(line)
