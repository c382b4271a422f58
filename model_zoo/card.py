"""Put a finished run into the zoo: python -m robustkit_zoo.card RUN NAME FOLDER."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from robustkit.recipe import read
from robustkit.records import EvalRecord, RunFolder, RunRecord
from robustkit.report.words import with_interval


def card(run: RunFolder) -> dict[str, object]:
    """Give what is known of a run's model: recipe, accuracies, AutoAttack, seed, versions."""
    record = RunRecord.read(run.record)
    evaluation = next(e for e, _ in run.results() if e.attack["name"] == "autoattack")
    return {
        "summary": summary(evaluation),
        "title": record.title,
        "recipe": read(run.recipe),
        "seed": record.seed,
        "data": record.data,
        "threat": evaluation.threat.model_dump(mode="json"),
        "n": evaluation.clean.n,
        "clean": evaluation.clean.model_dump(),
        "autoattack": evaluation.robust.model_dump(),
        "evaluation_seed": evaluation.seed,
        "epoch": record.best_epoch,
        "versions": record.provenance.versions,
        "device": record.provenance.device,
    }


def summary(evaluation: EvalRecord) -> str:
    """Say in a line what the model withstands."""
    return (
        f"{evaluation.data['name']}: clean {with_interval(evaluation.clean)}, "
        f"autoattack {evaluation.threat.model()} {with_interval(evaluation.robust)}, "
        f"{evaluation.clean.n} points"
    )


if __name__ == "__main__":
    source, name, zoo = sys.argv[1:]
    folder = Path(zoo) / name
    folder.mkdir(exist_ok=True)
    shutil.copy(RunFolder(Path(source)).model, folder / "model.pt")
    text = json.dumps(card(RunFolder(Path(source))), indent=1)
    (folder / "card.json").write_text(text + "\n", "utf-8")
