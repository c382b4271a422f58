"""Subsets of classes, in and out of balance, and the flags that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustkit.catalog import build
from robustkit.cli import options
from robustkit.data import ArrayImages, class_counts
from robustkit.data.subset import ClassSubset
from robustkit.errors import BadValueError, UnknownNameError
from robustkit.interfaces import Dataset, Images
from robustkit.testing import checks

NAMES = ("ant", "bee", "cow", "dog")


class Toy(Dataset):
    """Points of four classes in turn, their place in their first pixel; the last label is unknown."""

    name: ClassVar[str] = "toy"

    def split(self, part: Literal["train", "test"]) -> Images:
        n = 81 if part == "train" else 41
        labels = np.arange(n) % 4
        labels[-1] = -1
        array = np.zeros((n, 1, 2, 2), np.uint8)
        array[:, 0, 0, 0] = np.arange(n)
        return ArrayImages(array, labels, NAMES, "toy", "these are toys")


def subset(classes: Sequence[str] = (), imbalance: float = 1.0) -> ClassSubset:
    return ClassSubset(data=Toy(), classes=tuple(classes), imbalance=imbalance)


def places(images: Images) -> list[int]:
    """Where the points were in the data set they are of."""
    found: list[int] = images.take(torch.arange(len(images)))[:, 0, 0, 0].tolist()
    return found


def test_labels_follow_the_order_in_which_classes_are_named() -> None:
    for part, per_class in (("train", 20), ("test", 10)):
        images = subset(["dog", "bee"]).split(part)  # type: ignore[arg-type]
        assert images.classes == ("dog", "bee")
        assert class_counts(images) == [per_class, per_class]
        assert places(images) == [k for k in range(4 * per_class) if k % 2]
        for place, label in zip(places(images), images.labels.tolist(), strict=True):
            assert images.classes[label] == NAMES[place % 4]


def test_the_last_class_keeps_the_ratio_of_its_training_points() -> None:
    unbalanced = subset(["ant", "dog"], 0.3)
    assert class_counts(unbalanced.split("train")) == [20, 6]
    assert class_counts(unbalanced.split("test")) == [10, 10]
    assert class_counts(subset(["dog", "ant"], 0.3).split("train")) == [20, 6]


def test_between_first_and_last_numbers_fall_geometrically() -> None:
    assert class_counts(subset(imbalance=0.125).split("train")) == [20, 10, 5, 2]
    assert class_counts(subset(["cow", "ant", "bee"], 0.01).split("train")) == [20, 2, 1]
    assert class_counts(subset().split("train")) == [20, 20, 20, 20]


def test_the_points_that_stay_are_drawn_once_for_all() -> None:
    some, fewer = (set(places(subset(["ant", "bee"], r).split("train"))) for r in (0.5, 0.25))
    assert fewer < some
    bees = sorted(place for place in some if place % 4 == 1)
    assert len(bees) == 10
    assert bees != list(range(1, 40, 4))  # not the first ones


@given(
    classes=st.permutations(NAMES).flatmap(lambda p: st.integers(2, 4).map(lambda k: p[:k])),
    imbalance=st.floats(0.001, 1),
)
@settings(max_examples=60, deadline=None)
def test_every_point_keeps_its_class(classes: list[str], imbalance: float) -> None:
    images = subset(classes, imbalance).split("train")
    counts = class_counts(images)
    assert len(set(places(images))) == len(images) == sum(counts)
    assert [images.classes[k] for k in images.labels] == [NAMES[p % 4] for p in places(images)]
    assert counts[0] == 20
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == max(1, round(20 * imbalance))
    assert images.remark == "these are toys"  # type: ignore[attr-defined]


def test_it_keeps_the_contract_of_data_sets() -> None:
    digits = ClassSubset(data="digits", classes=("3", "8"), imbalance=0.5)  # type: ignore[arg-type]
    for one in checks("dataset"):
        one.run(digits)


def test_wrong_classes_and_ratios_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="'cwo'; did you mean 'cow'"):
        subset(["ant", "cwo"]).split("test")
    for options_ in (
        {"classes": ["3"]},
        {"classes": ["3", "3"]},
        {"imbalance": 0},
        {"imbalance": 2},
    ):
        with pytest.raises(BadValueError):
            build("dataset", {"name": "subset", **options_})


# Flags


def data_of(table: Any, settings: list[tuple[str, Any]], **flags: Any) -> Any:
    asked = {"classes": "", "imbalance": None, **flags}
    tables, rest = options.narrowed({"data": table, "seed": 1}, settings, **asked)
    assert tables["seed"] == 1
    assert all(not path.startswith("data") for path, _ in rest)
    return tables["data"]


@pytest.mark.parametrize(
    ("table", "settings_", "inner"),
    [
        ({"name": "digits"}, [], {"name": "digits"}),
        ("digits", [("data.name", "cifar10")], {"name": "cifar10"}),
        ({"name": "mnist"}, [("data.root", "x"), ("seed", 3)], {"name": "mnist", "root": "x"}),
        ({"name": "mnist", "root": "x"}, [("data.name", "npz")], {"name": "npz"}),
    ],
)
def test_flags_take_a_subset_of_whatever_data_are_named(
    table: Any, settings_: list[tuple[str, Any]], inner: Any
) -> None:
    data = data_of(table, settings_, classes="b, a", imbalance=0.3)
    wanted = {"name": "subset", "data": inner, "classes": ["b", "a"], "imbalance": 0.3}
    assert data == wanted


def test_flags_change_a_subset_rather_than_take_one_of_it() -> None:
    own = {"name": "subset", "data": {"name": "cifar10"}, "classes": ["cat", "dog"]}
    assert data_of(own, [], imbalance=0.5) == {**own, "imbalance": 0.5}
    assert data_of(own, [], classes="dog,cat") == {**own, "classes": ["dog", "cat"]}


def test_without_flags_nothing_changes() -> None:
    table, settings_ = {"data": "digits"}, [("data.name", "mnist")]
    assert options.narrowed(table, settings_, "", None) == (table, settings_)


@pytest.mark.parametrize(
    ("dataset", "own", "option"),
    [
        ("mnist", None, "root"),
        ("cifar10", None, "root"),
        ("folder", {"name": "mnist"}, "path"),
        ("", {"name": "svhn"}, "root"),
        ("", "npz", "path"),
        ("", {"name": "subset", "data": {"name": "cifar100"}}, "data.root"),
        ("", {"name": "subset", "data": "folder"}, "data.path"),
        ("", None, "path"),
    ],
)
def test_the_path_goes_to_the_option_that_takes_it(dataset: str, own: Any, option: str) -> None:
    settings_ = options.data_settings(dataset, "here", own)
    assert settings_[-1] == (f"data.{option}", "here")
    assert [path for path, _ in settings_[:-1]] == ["data.name"] * bool(dataset)


def run(*command: str) -> Any:
    from typer.testing import CliRunner

    from robustkit.cli import app

    return CliRunner().invoke(app, list(command))


def test_train_and_eval_agree_on_the_subset(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    trained = run(
        *("train", "--plugin", "standard", "--dataset", "digits", "--out", "here"),
        *("--classes", "8,3", "--imbalance", "0.3", "--epochs", "1", "--model", "mlp"),
        *("--set", "select.limit=8"),
    )
    assert trained.exit_code == 0, trained.output

    from robustkit.records import RunFolder

    folder = RunFolder(Path("here"))
    assert run("eval", "here", "--attack", "fgsm", "--limit", "8").exit_code == 0
    ((record, _),) = folder.results()
    assert record.classes == ("8", "3")
    assert record.data["imbalance"] == 0.3
    assert run("eval", "here", "--attack", "pgd", "--dataset", "digits", "--classes", "8,3",
               "--limit", "8").exit_code == 0  # fmt: skip


def test_data_shows_a_subset() -> None:
    shown = run("data", "digits", "--classes", "8,3", "--imbalance", "0.3").output
    assert "classes  8, 3" in shown
    assert "counts   139, 44" in shown  # of 139 and 146
    refused = run("data", "digits", "--classes", "8,30")
    assert refused.exit_code == 2
    assert "unknown class '30'" in refused.output


def test_the_list_says_what_is_here(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ROBUSTKIT_DATA", str(tmp_path))
    (tmp_path / "cifar10-jpg").mkdir()
    shown = run("data").output
    assert f"here: {tmp_path / 'cifar10-jpg'}" in shown
    assert f"not in {tmp_path / 'SVHN'}: fetched when used" in shown
    assert f"not in {tmp_path / 'tiny-imagenet-200'}: put" in shown
