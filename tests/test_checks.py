"""Promise 9: each warning on a case that has the fault, and none on one that has not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_parts import Linear, Means, Several, Step, Walk, linear_images, run
from torch import Tensor, nn

from robustkit.analysis.statistics import rate
from robustkit.data.images import ArrayImages
from robustkit.engine import checks
from robustkit.engine.probe import probe
from robustkit.engine.verdict import CHUNK
from robustkit.errors import BadValueError
from robustkit.records import EvalRecord, PartRecord, Provenance, Threat
from robustkit.threat import ThreatModel

CLASSES = ("up", "down")
OPEN = (-math.inf, math.inf)
LINF = ThreatModel("linf", 0.02)


class Wrapped(nn.Module):
    """A linear model with something done to its images or logits."""

    def __init__(self, before: Any = None, after: Any = None) -> None:
        super().__init__()
        self.model, self.before, self.after = Linear(), before, after

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(self.before(x) if self.before else x)
        return self.after(logits) if self.after else logits


class Quantise(torch.autograd.Function):
    """Rounding, whose gradient is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x * 16).round() / 16

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.zeros_like(gradient)


def warnings_of(model: nn.Module, classes: Sequence[str] = CLASSES) -> tuple[str, ...]:
    images = linear_images(Linear(), n=60)
    x = images.take(torch.arange(60)).float() / 255
    return probe(model.eval(), x, images.labels, classes, seed=0).warnings


def test_a_model_is_probed_on_few_images_at_once() -> None:
    """The graph of one that is large would take more memory than its attacks."""
    shown: list[int] = []
    model = Wrapped(before=lambda x: shown.append(len(x)) or x)
    images = linear_images(Linear(), n=CHUNK + 10)
    x = images.take(torch.arange(len(images))).float() / 255
    assert probe(model.eval(), x, images.labels, CLASSES, seed=0).warnings == ()
    assert sorted(set(shown)) == [10, CHUNK // 4, CHUNK // 2, CHUNK]


def test_a_sound_model_is_not_warned_of() -> None:
    assert warnings_of(Linear()) == ()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Wrapped(before=lambda x: x + 0.1 * torch.randn_like(x)), "randomised"),
        (Wrapped(after=lambda z: z.softmax(1)), "probabilities"),
        (Wrapped(after=lambda z: z * 1000), "saturated"),
        (Wrapped(before=Quantise.apply), "zero on 100% of probed images"),
        (Wrapped(before=lambda x: x.detach()), "no gradient reaches"),
        (Wrapped(before=lambda x: x - x.mean(0)), "depends on the others of its batch"),
        (Wrapped(after=lambda z: z.where(z > 0, math.nan)), "gives NaN for 60 of 60"),
    ],
    ids=["randomised", "softmax", "saturated", "masked", "detached", "batch", "nan"],
)
def test_a_fault_is_named_and_only_it(model: nn.Module, said: str) -> None:
    if said.startswith("no gradient"):
        model.requires_grad_(False)
    warnings = warnings_of(model)
    assert any(said in line for line in warnings), warnings
    allowed = 2 if "NaN" in said else 1
    assert len(warnings) <= allowed, warnings


def test_log_probabilities_are_logits() -> None:
    assert warnings_of(Wrapped(after=lambda z: z.log_softmax(1))) == ()


def test_batch_norm_in_training_mode_is_seen() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.model = nn.BatchNorm2d(1), Linear()

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.batch_norm(x, None, None, training=True)
            return self.model(x / 10 + 0.5)

    assert "batch" in warnings_of(Stubborn())[0]


def test_a_few_dead_gradients_are_no_masking() -> None:
    gradient = torch.ones(100, 1, 2, 2)
    gradient[:10] = 0
    assert checks.masked_gradients(gradient) == []
    gradient[10] = math.nan
    assert "11%" in checks.masked_gradients(gradient)[0]


def test_a_few_confident_answers_are_no_saturation() -> None:
    logits = torch.tensor([[20.0, 0.0, 3.0]] * 10 + [[16.0, 0.0, 1.0]] * 90)
    assert checks.saturated(logits) == []
    logits[10, 0] = 20.0
    assert "saturated on 11%" in checks.saturated(logits)[0]
    assert checks.saturated(logits[:, :1]) == []


def test_uint8_becomes_unit_range_and_floats_must_be() -> None:
    whole = torch.tensor([[0, 255]], dtype=torch.uint8)
    assert checks.unit_range(whole, boxed=True).tolist() == [[0.0, 1.0]]
    shifted = torch.tensor([[-2.1179, 2.64]])
    with pytest.raises(BadValueError, match=r"\[-2\.118, 2\.64\], not in \[0, 1\]"):
        checks.unit_range(shifted, boxed=True)
    assert torch.equal(checks.unit_range(shifted, boxed=False), shifted)
    with pytest.raises(BadValueError, match="nan"):
        checks.unit_range(torch.tensor([[0.5, math.nan]]), boxed=True)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: (x, x), "returns tuple"),
        (lambda x: x, r"shape \(60, 1, 4, 4\)"),
        (lambda x: x.flatten(1), "16 classes and the data set 2"),
        (lambda x: x @ torch.rand(3, 3), r"fails on images of shape \(1, 4, 4\): RuntimeError"),
    ],
)
def test_what_is_not_logits_is_refused_in_one_line(answer: Any, said: str) -> None:
    class Answers(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return answer(x)

    with pytest.raises(BadValueError, match=said) as raised:
        warnings_of(Answers())
    assert "\n" not in str(raised.value)


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(BadValueError, match="label 2, but only 2 classes"):
        checks.require_labels(torch.tensor([0, 2]), CLASSES)
    checks.require_labels(torch.tensor([0, 1]), CLASSES)


def test_class_names_in_another_order_are_warned_of() -> None:
    assert checks.class_names(("cat", "dog"), ("cat", "dog")) == []
    line = checks.class_names(("cat", "dog"), ("dog", "cat"))[0]
    assert line.startswith("class 0 is 'cat' to the model and 'dog' to the data set")


def test_near_chance_suggests_what_to_check() -> None:
    constant = [[10, 0, 0]] * 3
    assert "normalisation" in checks.near_chance(rate(10, 30), constant)[0]
    turned = [[0, 10, 0], [0, 0, 10], [10, 0, 0]]
    assert (
        "another order of classes it would be 100.0%" in checks.near_chance(rate(0, 30), turned)[0]
    )
    assert checks.near_chance(rate(20, 30), [[7, 2, 1], [2, 7, 1], [2, 2, 6]]) == []


def part(
    name: str,
    attacked: int,
    broken: int,
    backwards: float,
    rejected: int = 0,
    forwards: float | None = None,
) -> PartRecord:
    return PartRecord(
        name=name,
        options={"name": name},
        attacked=attacked,
        broken=broken,
        seconds=0,
        forwards=max(attacked, backwards) if forwards is None else forwards,
        backwards=backwards,
        rejected=rejected,
    )


def test_a_black_box_that_beats_gradients_by_more_than_the_references_rule() -> None:
    white, few, many = part("pgd", 990, 400, 9900), part("square", 590, 2, 0), part("sq", 590, 3, 0)
    assert checks.black_box_wins([white, few], 1000) == []
    assert "'sq', which uses no gradient, broke 3" in checks.black_box_wins([white, many], 1000)[0]
    assert checks.black_box_wins([many], 1000) == []
    assert checks.black_box_wins([white, part("fab", 590, 30, 590)], 1000) == []


def test_rejections_make_the_number_invalid() -> None:
    assert checks.rejections(part("a", 9, 0, 0), math.nan, "linf 0.1") == []
    line = checks.rejections(part("a", 9, 0, 0, rejected=4), 0.3, "linf 0.1")[0]
    assert line.startswith("invalid: attack 'a' is broken: 4 of 9 proposals are outside linf 0.1")
    assert "not numbers" in checks.rejections(part("a", 9, 0, 0, 4), math.nan, "linf 0.1")[0]


def record(
    name: str,
    eps: float,
    robust: int,
    gradients: float,
    norm: str = "linf",
    box: tuple[float, float] = (0, 1),
) -> EvalRecord:
    return EvalRecord(
        hash=f"{name}{eps}",
        model="m",
        model_hash="h",
        attack={"name": name},
        threat=Threat(norm=norm, eps=eps, low=box[0], high=box[1]),
        seed=0,
        data={},
        classes=CLASSES,
        clean=rate(1000, 1000),
        robust=rate(robust, 1000),
        parts=(part(name, 1000, 1000 - robust, 1000 * gradients),),
        confusion_clean=((1,),),
        confusion_adversarial=((1,),),
        provenance=Provenance(versions={}, device="cpu", started="", seconds=0),
    )


@pytest.mark.parametrize(
    ("one", "other", "warned"),
    [
        (record("fgsm", 0.1, 300, 1), record("pgd", 0.1, 303, 10), True),
        (record("fgsm", 0.1, 301, 1), record("pgd", 0.1, 303, 10), False),
        (record("fgsm", 0.1, 400, 1), record("pgd", 0.1, 303, 10), False),
        (record("fgsm", 0.2, 300, 1), record("pgd", 0.1, 400, 10), False),
        (record("square", 0.1, 300, 0), record("pgd", 0.1, 400, 10), False),
        (record("swift", 0.1, 300, 9), record("autoattack", 0.1, 311, 10), True),
        (record("swift", 0.1, 300, 9), record("autoattack", 0.1, 310, 10), False),
        (record("autoattack", 0.1, 300, 9), record("swift", 0.1, 400, 10), False),
        (record("swift", 0.1, 300, 9), record("autoattack", 0.1, 400, 10, norm="l2"), False),
        (record("pgd", 0.1, 300, 9), record("pgd", 0.2, 303, 9), True),
        (record("pgd", 0.1, 300, 9), record("pgd", 0.2, 302, 9), False),
        (record("pgd", 0.1, 300, 9), record("pgd", 0.2, 400, 9, norm="l2"), False),
        (record("pgd", 0.1, 300, 9, box=OPEN), record("pgd", 0.2, 400, 9), False),
        (record("pgd", 0.1, 300, 9, box=OPEN), record("pgd", 0.2, 400, 9, box=OPEN), True),
    ],
)
def test_comparisons_warn_of_the_worse_one(
    one: EvalRecord, other: EvalRecord, warned: bool
) -> None:
    for pair in ([one, other], [other, one]):
        lines = checks.across(pair)
        assert lines[one.hash] == []
        assert len(lines[other.hash]) == warned


def test_several_gradients_of_one_point_are_one_step() -> None:
    """As the rivals of adv-alpha: its one step is no longer a search than another's."""
    one, other = record("fgsm", 0.1, 500, 1), record("alpha", 0.1, 600, 9)
    both = other.parts[0].model_copy(update={"forwards": 1000.0})
    assert checks.across([one, other])[other.hash]
    other = other.model_copy(update={"parts": (both,)})
    assert not checks.across([one, other])[other.hash]


def test_warnings_reach_the_record_and_its_file(tmp_path: Path) -> None:
    """A masked model: gradients are zero, a random walk without gradients breaks it."""
    model = Wrapped(before=Quantise.apply)
    images = linear_images(Linear())
    attack = Several(names=("step", "walk"))
    threats = [ThreatModel("linf", 0.1), ThreatModel("linf", 0.2)]
    records = run(tmp_path, model, images, [attack], *threats, classes=("down", "up"))
    assert records[0].parts[0].broken < records[0].parts[1].broken
    for said in ("gradient masking", "class 0 is", "'walk', which uses no gradient"):
        assert any(said in line for line in records[0].warnings), records[0].warnings


def test_comparisons_reach_the_file_too(tmp_path: Path) -> None:
    """Too large a step at the larger eps leaves the ball there, which breaks nothing."""
    model, images = Linear(), linear_images(Linear())

    class Clumsy(Step):
        name = "clumsy"

        def perturb(self, victim: Any, x: Tensor, y: Tensor, threat: Any, *rest: Any) -> Tensor:
            x_adv = super().perturb(victim, x, y, threat, *rest)
            return x_adv if threat.eps < 0.1 else x

    attacks = [Clumsy(), Walk()]
    records = run(tmp_path, model, images, attacks, LINF, ThreatModel("linf", 0.2))
    late = next(r for r in records if r.attack["name"] == "clumsy" and r.threat.eps == 0.2)
    assert "'clumsy' breaks less at eps 0.2 than at 0.02" in late.warnings[-1]
    assert EvalRecord.read(tmp_path / "eval" / f"{late.stem}.json") == late


def test_the_wrong_normalisation_shows(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 10
    pixels = generator.random((300, 1, 4, 4)) * 60 + 190 * np.eye(16)[labels].reshape(-1, 1, 4, 4)
    images = ArrayImages(pixels.astype(np.uint8), labels, [str(i) for i in range(10)])
    x = images.take(torch.arange(300)).float() / 255
    good = Means(x, images.labels, 10)
    (sound,) = run(tmp_path, good, images, [Step()], LINF)
    assert sound.clean.value > 0.9 and sound.warnings == ()

    class OtherRange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return good((x - 0.5) / 0.25 * -1)

    (off,) = run(tmp_path, OtherRange(), images, [Step()], LINF)
    assert any("near chance" in line for line in off.warnings)
