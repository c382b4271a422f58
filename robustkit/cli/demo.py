"""robustkit demo: the main job on embedded data, in one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from robustkit.cli import options


def demo(
    out: Annotated[Path, typer.Option("--out", help="Run folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything random.")] = 0,
    device: options.Device = "auto",
) -> None:
    """Train on real digits by policy gradient, attack with the full AutoAttack, write the report.

    Interrupted, the same command goes on where it was.
    """
    from robustkit.cli import evaluate, report, sources, train
    from robustkit.models.files import load_model
    from robustkit.records import RunFolder

    folder = RunFolder(out)
    begun = folder.recipe.exists()
    table = train.starting_table("policy-gradient", None, "")
    train.run(table, [("seed", seed)], folder, begun, device)
    loaded = load_model(folder.model, "cpu")
    (threat,) = evaluate.threats_of(loaded, "", "", str(folder.model))
    sizes = [replace(threat, eps=threat.eps * share) for share in (0.5, 1, 1.5, 2)]
    for attack, threats in (("pgd", sizes), ("autoattack", [threat])):
        evaluate.run(
            loaded,
            sources.test_part(loaded.record["data"]),
            sources.build_attacks([attack], []),
            threats,
            folder,
            name=str(folder.model),
            seed=seed,
            resume=True,
            device=device,
        )
    report.report([out])
    print(f"open {(out / 'report.html').resolve()} in a browser")
