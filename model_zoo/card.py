"""Put a finished run into the zoo: python -m robustkit_zoo.card RUN NAME FOLDER."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from robustkit.recipe import read
from robustkit.records import EvalRecord, Rate, RunFolder, RunRecord
from robustkit.report.words import with_interval


def card(run: RunFolder) -> dict[str, object]:
    """Give what is known of a run's model: recipe, accuracies, AutoAttack, seed, versions."""
    record = RunRecord.read(run.record)
    results = [evaluation for evaluation, _ in run.results()]
    evaluation = next(e for e in results if e.attack["name"] == "autoattack")
    clean = max((e.clean for e in results), key=lambda rate: rate.n)
    return {
        "summary": summary(evaluation, clean),
        "title": record.title,
        "recipe": read(run.recipe),
        "seed": record.seed,
        "data": record.data,
        "threat": evaluation.threat.model_dump(mode="json"),
        "clean": clean.model_dump(),
        "autoattack": evaluation.robust.model_dump(),
        "evaluation_seed": evaluation.seed,
        "evaluation_limit": evaluation.limit,
        "warnings": list(evaluation.warnings),
        "epoch": record.best_epoch,
        "versions": record.provenance.versions,
        "device": record.provenance.device,
    }


def summary(evaluation: EvalRecord, clean: Rate) -> str:
    """Say in a line what the model withstands."""
    return (
        f"{evaluation.data['name']}: clean {with_interval(clean)} of {clean.n} points, autoattack"
        f" {evaluation.threat.model()} {with_interval(evaluation.robust)} of {evaluation.robust.n}"
    )


if __name__ == "__main__":
    source, name, zoo = sys.argv[1:]
    folder = Path(zoo) / name
    folder.mkdir(exist_ok=True)
    shutil.copy(RunFolder(Path(source)).model, folder / "model.pt")
    text = json.dumps(card(RunFolder(Path(source))), indent=1)
    (folder / "card.json").write_text(text + "\n", "utf-8")
