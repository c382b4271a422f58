"""Every model of the zoo is what its card says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustkit.catalog import build
from robustkit.cli.zoo import cards, weights_of
from robustkit.data.images import unit
from robustkit.engine.evaluate import evaluate
from robustkit.engine.identity import hash_module
from robustkit.models.files import load_model
from robustkit.records import RunFolder, Threat


@pytest.mark.parametrize("name", cards())
def test_clean_accuracy_is_that_of_the_card(name: str) -> None:
    card = cards()[name]
    loaded = load_model(weights_of(name))
    images = build("dataset", card["data"]).split("test")
    with torch.no_grad():
        logits = loaded.module(unit(images.take(torch.arange(len(images)))))
    assert int((logits.argmax(1) == images.labels).sum()) == card["clean"]["count"]
    assert len(images) == card["n"]


@pytest.mark.slow
@pytest.mark.parametrize("name", cards())
def test_autoattack_is_that_of_the_card(name: str, tmp_path: Path) -> None:
    card = cards()[name]
    loaded = load_model(weights_of(name))
    dataset = build("dataset", card["data"])
    (record,) = evaluate(
        loaded.module,
        dataset.split("test"),
        [build("attack", "autoattack")],
        [Threat(**card["threat"]).model()],
        folder=RunFolder(tmp_path),
        model_name=name,
        model_hash=hash_module(loaded.module),
        data=card["data"],
        seed=card["evaluation_seed"],
        device="cpu",
    )
    assert abs(record.robust.count - card["autoattack"]["count"]) <= 1
