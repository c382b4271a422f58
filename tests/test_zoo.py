"""Every model of the zoo is what its card says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from robustkit.catalog import build
from robustkit.cli.zoo import cards, weights_of
from robustkit.data.images import unit
from robustkit.engine.evaluate import evaluate
from robustkit.engine.identity import hash_module
from robustkit.interfaces import Images
from robustkit.models.files import load_model
from robustkit.records import RunFolder, Threat


def points(card: dict[str, Any]) -> Images:
    """Load the test points of a card's data set; without them there is nothing to verify."""
    if card["data"]["name"] != "digits" and "ROBUSTKIT_DATA" not in os.environ:
        pytest.skip("ROBUSTKIT_DATA names no data")
    images: Images = build("dataset", card["data"]).split("test")
    return images


@pytest.mark.parametrize("name", cards())
def test_clean_accuracy_is_that_of_the_card(name: str) -> None:
    card = cards()[name]
    loaded, images = load_model(weights_of(name)), points(card)
    with torch.no_grad():
        logits = loaded.module(unit(images.take(torch.arange(len(images)))))
    assert int((logits.argmax(1) == images.labels).sum()) == card["clean"]["count"]
    assert len(images) == card["clean"]["n"]


@pytest.mark.slow
@pytest.mark.parametrize("name", cards())
def test_autoattack_is_that_of_the_card(name: str, tmp_path: Path) -> None:
    card = cards()[name]
    loaded, images = load_model(weights_of(name)), points(card)
    (record,) = evaluate(
        loaded.module,
        images,
        [build("attack", "autoattack")],
        [Threat(**card["threat"]).model()],
        folder=RunFolder(tmp_path),
        model_name=name,
        model_hash=hash_module(loaded.module),
        data=card["data"],
        seed=card["evaluation_seed"],
        limit=card["evaluation_limit"],
        device="cpu",
    )
    assert record.robust.n == card["autoattack"]["n"]
    # Another number of threads may decide another point.
    assert abs(record.robust.count - card["autoattack"]["count"]) <= 1
