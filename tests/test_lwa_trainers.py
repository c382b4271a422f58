"""The trainers of learning with adversary: what they minimise, and where inside a model they act."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from robustkit_plugins.learning_with_adversary.parts import Parts
from robustkit_plugins.learning_with_adversary.trainers import LWA, Goodfellow, LWARepresentation
from torch import Tensor, nn
from torch.nn import functional as F

from robustkit import BadValueError, RobustkitError, Trainer
from robustkit.catalog import build
from robustkit.engine.victim import frozen
from robustkit.errors import BrokenPluginError
from robustkit.interfaces import Batch, Clock
from robustkit.models.common import Classifier
from robustkit.testing.bench import THREAT, BenchKit, batch_of, conv_model, conv_points
from robustkit.threat import ThreatModel
from robustkit.trainers.perturbed_weights import AWP, Elsewhere

CLOCK = Clock(epoch=0, epochs=4, step=0, steps=40)


def ready(trainer: Trainer) -> Any:
    for _, part in trainer.tree():
        part.prepare(BenchKit())
    return trainer


def points() -> Batch:
    return batch_of(*conv_points())


def moved(trainer: Trainer, model: nn.Module, batch: Batch) -> Batch:
    with frozen(model):
        return trainer.adversary(model, batch, CLOCK)


class Residual(nn.Module):
    """A model with a layer that something goes past."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
        self.branch, self.last = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.stem(x)
        logits: Tensor = self.last(seen + self.branch(seen).tanh())
        return logits


def test_goodfellow_weighs_the_points_as_they_are_and_as_moved() -> None:
    batch, model = points(), conv_model()
    for alpha in (0.0, 0.25, 1.0):
        trainer = ready(Goodfellow(alpha=alpha))
        there = moved(trainer, model, batch)
        terms = trainer.objective(model, there, CLOCK)
        clean = F.cross_entropy(model(batch.x), batch.y, reduction="none")
        other = F.cross_entropy(model(there.x), batch.y, reduction="none")
        assert torch.allclose(terms.loss, alpha * clean + (1 - alpha) * other)
        assert (THREAT.size(there.x - batch.x) > 0).all()


def test_lwa_trains_on_the_whole_batch_where_its_attack_moved_it() -> None:
    batch, model = points(), conv_model()
    trainer = ready(LWA())
    there = moved(trainer, model, batch)
    assert torch.allclose(there.x, THREAT.project(there.x, batch.x))
    before, after = (model(x).softmax(1).gather(1, batch.y[:, None]) for x in (batch.x, there.x))
    assert (after < before).all()
    loss = trainer.objective(model, there, CLOCK).loss
    assert torch.allclose(loss, F.cross_entropy(model(there.x), batch.y, reduction="none"))


@pytest.mark.parametrize("layer", ["", "features", "features.2", "features.0"])
def test_a_cut_model_is_the_whole_one(layer: str) -> None:
    model, (x, _) = conv_model(), conv_points()
    parts = Parts(model, layer, x)
    inside = parts.lower(x)
    assert torch.allclose(parts(inside), model(x), atol=1e-6)
    shift = torch.randn_like(inside)
    assert torch.allclose(parts.shifted(x, shift), parts(inside + shift), atol=1e-5)
    parts.check(x)


@pytest.mark.parametrize("layer", ["", "features.2"])
@pytest.mark.parametrize("attack", ["adv-loss", "adv-alpha", "pgd"])
def test_the_representation_is_moved_by_eps_against_the_label(layer: str, attack: str) -> None:
    """On a linear head the move is in closed form: down the slope of the log-odds."""
    model, batch = conv_model(), points()
    trainer = ready(LWARepresentation(layer=layer, eps=0.3, attack=attack))
    there = moved(trainer, model, batch)
    assert torch.equal(there.x, batch.x)
    shift = there.shift
    assert shift is not None
    assert torch.allclose(THREAT.size(shift), torch.full((len(batch),), 0.3), atol=1e-5)
    terms = trainer.objective(model, there, CLOCK)
    parts = Parts(model, layer, batch.x)
    logits = parts(parts.lower(batch.x) + shift)
    assert torch.allclose(terms.loss, F.cross_entropy(logits, batch.y, reduction="none"), atol=1e-5)
    own = F.cross_entropy(model(batch.x), batch.y, reduction="none")
    assert (terms.loss > own).all()
    if not layer and attack == "adv-loss":
        weight = model.head.weight.detach()  # type: ignore[union-attr]
        logits = model(batch.x)
        others = logits.scatter(1, batch.y[:, None], -torch.inf).softmax(1)
        slope = weight[batch.y] - others @ weight
        assert torch.allclose(shift, -0.3 * slope.sign(), atol=1e-5)


@pytest.mark.parametrize("layer", ["", "features.2"])
def test_gradients_reach_both_parts_and_take_the_move_as_fixed(layer: str) -> None:
    model, batch = conv_model(), points()
    trainer = ready(LWARepresentation(layer=layer, eps=0.3))
    there = moved(trainer, model, batch)
    trainer.objective(model, there, CLOCK).loss.mean().backward()
    for name, weight in model.named_parameters():
        if name in ("features.0.weight", "head.weight"):
            assert weight.grad is not None
            assert weight.grad.abs().max() > 0


def test_training_statistics_see_the_whole_batch_once() -> None:
    """The search inside leaves batch norm alone; the objective passes once, with the whole batch."""
    model, batch = conv_model().train(), points()
    for layer in ("", "features.2"):
        own = conv_model().train()
        trainer = ready(LWARepresentation(layer=layer, eps=0.3))
        there = moved(trainer, own, batch)
        trainer.objective(own, there, CLOCK)
        model.load_state_dict(conv_model().state_dict())
        model(batch.x)
        for (name, buffer), (_, right) in zip(
            own.named_buffers(), model.named_buffers(), strict=True
        ):
            assert torch.allclose(buffer, right), name


@pytest.mark.parametrize("layer", ["", "features.2"])
def test_weights_may_be_moved_around_it(layer: str) -> None:
    model, batch = conv_model(), points()
    inner = LWARepresentation(layer=layer, eps=0.3)
    trainer = ready(AWP(trainer=inner, gamma=0.5))
    there = moved(trainer, model, batch)
    higher = trainer.objective(model, there, CLOCK).loss.mean()
    assert higher > inner.objective(model, there, CLOCK).loss.mean()
    same = Elsewhere(model, {name: p.clone() for name, p in model.named_parameters()})
    terms = [inner.objective(m, there, CLOCK).loss for m in (model, same)]
    assert torch.allclose(*terms)


def test_a_layer_that_is_no_cut_is_refused_in_a_line() -> None:
    batch, model = points(), Residual()
    for layer, words in (
        ("branch", "layer 'branch' does not hold all that the model knows of a point"),
        ("brnch", "unknown layer 'brnch'; did you mean 'branch'"),
        ("", "the model has no `features` and `head`"),
    ):
        trainer = ready(LWARepresentation(layer=layer))
        with pytest.raises(RobustkitError, match=words):
            moved(trainer, model, batch)
    good = moved(ready(LWARepresentation(layer="stem")), model, batch)
    assert good.shift is not None


def test_a_layer_used_twice_is_refused() -> None:
    layer = nn.Linear(4, 4)
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Sequential(layer, layer))
    with pytest.raises(BadValueError, match="layer 'head.0' is used 2 times"):
        Parts(model, "head.0", points().x).lower(points().x)


def test_the_move_is_measured_in_the_threats_norm_without_a_box() -> None:
    kit = BenchKit()
    kit.threat = ThreatModel("l2", 1.5)
    trainer = LWARepresentation(eps=2.0, attack="adv-loss")  # type: ignore[arg-type]
    for _, part in trainer.tree():
        part.prepare(kit)
    there = moved(trainer, conv_model(), points())
    assert there.shift is not None
    assert torch.allclose(there.shift.norm(dim=1), torch.tensor(2.0), atol=1e-5)


@pytest.mark.parametrize("name", ["goodfellow", "lwa", "lwa-representation"])
def test_the_inner_attack_is_any(name: str) -> None:
    trainer: Any = build("trainer", {"name": name, "attack": {"name": "pgd", "steps": 2}})
    assert trainer.attack.steps == 2
    there = moved(ready(trainer), conv_model(), points())
    assert there.shift is not None or not torch.equal(there.x, points().x)


def test_an_attack_of_images_alone_fails_in_a_line_that_names_it() -> None:
    with pytest.raises(BrokenPluginError, match="attack 'square' failed: ValueError"):
        moved(ready(LWARepresentation(attack="square")), conv_model(), points())  # type: ignore[arg-type]


def test_a_layer_that_no_pass_reaches_is_refused() -> None:
    model = conv_model()
    model.register_module("idle", nn.Linear(2, 2))
    with pytest.raises(BadValueError, match="layer 'idle' is used 0 times in a pass, not once"):
        Parts(model, "idle", points().x).lower(points().x)
