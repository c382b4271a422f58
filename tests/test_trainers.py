"""What each way of training computes, by hand and in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustkit.attacks.pgd import FGSM, PGD
from robustkit.engine.victim import CountingVictim, frozen
from robustkit.interfaces import Attack, Batch, Clock, Rng, Terms, Trainer, Victim
from robustkit.losses.boosted import BoostedCrossEntropy
from robustkit.losses.divergence import js, kl
from robustkit.models.common import Classifier
from robustkit.testing.bench import (
    CLASSES,
    THREAT,
    BenchKit,
    batch_of,
    conv_model,
    conv_points,
    linear_model,
    linear_points,
)
from robustkit.threat import ThreatModel
from robustkit.trainers.adversarial import Adversarial
from robustkit.trainers.consistency import Consistency
from robustkit.trainers.fast import Fast
from robustkit.trainers.free import Free
from robustkit.trainers.mart import Mart
from robustkit.trainers.perturbed_weights import AWP, SAM, Elsewhere
from robustkit.trainers.standard import Standard
from robustkit.trainers.trades import Trades

CLOCK = Clock(epoch=1, epochs=4, step=10, steps=40)


def ready(trainer: Trainer) -> Any:
    """Prepare a trainer and all in it, as the engine does."""
    kit = BenchKit()
    for _, part in trainer.tree():
        part.prepare(kit)
    return trainer


def moved(trainer: Trainer, model: nn.Module, batch: Batch) -> Batch:
    with frozen(model):
        return trainer.adversary(model, batch, CLOCK)


def points() -> Batch:
    batch = batch_of(*conv_points())
    return batch.replace(place=torch.arange(len(batch)))


def normless() -> nn.Module:
    """A model whose result does not depend on passes before it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, CLASSES))


def gradients(terms: Terms, model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(terms.loss.mean(), list(model.parameters())))


def test_divergences_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]])
    q = torch.tensor([[0.25, 0.25, 0.5], [0.2, 0.3, 0.5]])
    nats = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert kl(p.log() + 3, q.log()).tolist() == pytest.approx([nats, 0.0], abs=1e-6)
    m = (p[0] + q[0]) / 2
    half = ((p[0] * (p[0] / m).log()).sum() + (q[0] * (q[0] / m).log()).sum()) / 2
    assert js(p.log(), q.log() - 1).tolist() == pytest.approx([half.item(), 0.0], abs=1e-6)
    apart = torch.tensor([[100.0, -100.0]])
    assert js(apart, -apart).item() == pytest.approx(math.log(2))


def test_boosted_cross_entropy_by_hand() -> None:
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.6, 0.3, 0.1], [0.6, 0.3, 0.1]])
    loss = BoostedCrossEntropy()(probabilities.log(), torch.tensor([0, 1, 2]))
    others = [0.3, 0.6, 0.6]
    expected = [
        -math.log(p) - math.log(1 - q) for p, q in zip([0.6, 0.3, 0.1], others, strict=True)
    ]
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)
    certain = BoostedCrossEntropy()(torch.tensor([[-100.0, 100.0]]), torch.tensor([0]))
    assert certain.item() == pytest.approx(400.0)


@pytest.mark.parametrize("options", [{"beta": 0.0}, {"attack": {"name": "pgd", "noise": 0.0}}])
def test_trades_without_divergence_is_standard_training(options: dict[str, Any]) -> None:
    model, batch = normless(), points()
    trades = ready(Trades(**options))
    there = moved(trades, model, batch) if options.get("beta") == 0 else batch.moved(batch.x)
    terms = trades.objective(model, there, CLOCK)
    plain = ready(Standard()).objective(model, batch, CLOCK)
    assert torch.equal(terms.logits, plain.logits)
    for mine, standard in zip(gradients(terms, model), gradients(plain, model), strict=True):
        torch.testing.assert_close(mine, standard, rtol=1e-6, atol=1e-8)


def test_trades_climbs_the_divergence_and_differentiates_both_sides() -> None:
    model, batch = normless(), points()
    trades = ready(Trades(beta=2.0))
    there = moved(trades, model, batch)
    assert there.clean is batch.x
    assert there.y is batch.y
    p, q = model(batch.x), model(there.x)
    anywhere = THREAT.random_start(batch.x, trades._kit.rng(batch, CLOCK, "anywhere"))
    assert (kl(p, q) > kl(p, model(anywhere))).all()
    terms = trades.objective(model, there, CLOCK)
    expected = F.cross_entropy(p, batch.y, reduction="none") + 2 * kl(p, q)
    torch.testing.assert_close(terms.loss, expected)
    wanted = torch.autograd.grad(expected.mean(), list(model.parameters()))
    for mine, theirs in zip(gradients(terms, model), wanted, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_search_of_trades_follows_the_divergence_in_closed_form() -> None:
    """Of a linear model KL(p || softmax(W x')) has the gradient W^T (softmax(W x') - p)."""
    model, (x, y) = linear_model(), linear_points()
    batch, weight = batch_of(x, y), dict(linear_model().named_parameters())["1.weight"].detach()
    attack = PGD(steps=1, step_size=0.01, noise=0.001)
    there = moved(ready(Trades(attack=attack)), model, batch)
    rng = BenchKit().rng(batch, CLOCK, "pgd")
    start = x + 0.001 * rng.normal(x.shape[1:], ("start", 0))
    slope = (model(start).softmax(1) - model(x).softmax(1)) @ weight
    expected = THREAT.project(start + 0.01 * slope.sign().view_as(x), x)
    torch.testing.assert_close(there.x, expected)


class HardOnly(Attack):
    """Notes the labels it is given."""

    name = "hard-only"

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        return x + 1e-3 * y.view(-1, 1, 1, 1)


def test_an_attack_that_knows_hard_labels_gets_the_predicted_ones_from_trades() -> None:
    model, batch = normless(), points()
    batch = batch.replace(x=batch.x.clamp(0.1, 0.9))
    there = moved(ready(Trades(attack=HardOnly())), model, batch)
    found = ((there.x - batch.x).flatten(1).mean(1) * 1e3).round().long()
    assert torch.equal(found, model(batch.x).argmax(1))


def test_mart_by_hand() -> None:
    """A model that passes on the logits it is given, clean ones and moved ones."""
    clean = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    wrong = torch.tensor([[0.3, 0.6, 0.1], [0.1, 0.8, 0.1]])
    y = torch.tensor([0, 1])
    batch = batch_of(wrong.log(), y).replace(clean=clean.log())
    terms = ready(Mart(beta=5.0)).objective(nn.Identity(), batch, CLOCK)
    divergence = 0.7 * math.log(0.7 / 0.3) + 0.2 * math.log(0.2 / 0.6)
    expected = [
        -math.log(0.3) - math.log(1 - 0.6) + 5 * divergence * (1 - 0.7),
        -math.log(0.8) - math.log(1 - 0.1),
    ]
    assert terms.loss.tolist() == pytest.approx(expected, rel=1e-4)
    soft = batch.replace(y=torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))
    doubt = ready(Mart()).objective(nn.Identity(), soft, CLOCK).more["doubt"]
    assert doubt.tolist() == pytest.approx([1 - 0.45, 0.2], rel=1e-4)


def test_free_training_steps_once_by_fgsm_from_what_its_place_carries() -> None:
    model, batch = normless(), points()
    free = ready(Free(m=1))
    eps, carried = THREAT.eps, torch.zeros_like(batch.x)
    for _ in range(3):
        there = moved(free, model, batch)
        torch.testing.assert_close(there.x, (batch.x + carried).clamp(0, 1))
        terms = free.objective(model, there, CLOCK)
        terms.loss.mean().backward()
        x = there.x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x), batch.y), x)
        carried = (carried + eps * slope.sign()).clamp(-eps, eps)
        free.observe(there, terms)
        torch.testing.assert_close(free.state_dict()["delta"], carried)


def test_free_training_keeps_perturbations_by_place_whoever_is_there() -> None:
    model, batch = normless(), points()
    free = ready(Free())
    terms = free.objective(model, moved(free, model, batch), CLOCK)
    terms.loss.mean().backward()
    free.observe(batch, terms)
    kept = free.state_dict()["delta"].clone()
    half = batch.replace(**{k: v[3:] for k, v in vars(batch).items() if v is not None})
    expected = (half.x + kept[3:]).clamp(0, 1)
    torch.testing.assert_close(moved(free, model, half).x, expected)
    fewer = batch.replace(**{k: v[:2] for k, v in vars(batch).items() if v is not None})
    free.observe(fewer, replace(terms, more={"gradient": terms.more["gradient"][:2]}))
    assert torch.equal(free.state_dict()["delta"][2:], kept[2:])


def test_an_overflown_gradient_does_not_stay_in_free_training() -> None:
    batch, free = points(), ready(Free())
    free._kit.threat = ThreatModel("l2", 1.0)
    free.observe(batch, Terms(batch.x, batch.x, {"gradient": torch.full_like(batch.x, math.nan)}))
    assert not free.state_dict()["delta"].any()


@pytest.mark.parametrize(
    ("accuracies", "ends"),
    [([0.1, 0.5, 0.4, 0.31], False), ([0.1, 0.5, 0.29], True), ([0.5, None, 0.2], True)],
)
def test_fast_training_ends_at_catastrophic_overfitting(
    accuracies: list[float | None], ends: bool
) -> None:
    fast = ready(Fast())
    for accuracy in accuracies:
        metrics = {} if accuracy is None else {"heldout_adversarial": accuracy}
        fast.end_epoch(metrics)
        resumed = Fast()
        resumed.load_state_dict(fast.state_dict())
        said = resumed.enough(metrics)
    assert bool(said) == ends
    assert said == "" or said.startswith("catastrophic overfitting")
    assert AWP(trainer=fast).enough(metrics) == said
    assert AWP(trainer=Free(m=3)).replays == 3


def test_fgsm_steps_by_what_it_is_told() -> None:
    model, (x, y) = linear_model(), linear_points()
    threat, rng = ThreatModel("linf", 0.02), BenchKit().rng(batch_of(x, y), CLOCK, "fgsm")

    def size(**options: Any) -> Tensor:
        victim = CountingVictim(model, len(x), x.device, drop=False)
        return (FGSM(**options).perturb(victim, x, y, threat, rng) - x).abs()

    assert size().max().item() == pytest.approx(0.02, rel=1e-4)
    assert size(step_size=0.005).max().item() == pytest.approx(0.005, rel=1e-3)
    full, start = size(random_start=True), threat.random_start(x, rng, at=("start", 0)) - x
    up = full - 0.02 > -1e-6
    assert 0.5 < up[full > 0].float().mean() < 1, "1.25 eps reaches the ball from most starts"
    short = size(random_start=True, step_size=1e-4)
    torch.testing.assert_close(short, start.abs(), rtol=0, atol=1.1e-4)


def awp(**options: Any) -> AWP:
    """Make one whose trainer is given by name."""
    return AWP(**options)


class Quadratic(Trainer):
    """Minimises |w|^2 / 2 of every weight, at any point."""

    name = "quadratic"

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        loss = sum((p**2).sum() for _, p in model.named_parameters()) / 2
        return Terms(loss * torch.ones(len(batch)), torch.zeros(len(batch), CLASSES))


def line(*values: list[float]) -> nn.Linear:
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(values))
        model.bias.copy_(torch.tensor([0.0, 12.0]))
    return model


def test_sam_on_a_quadratic() -> None:
    """At w + rho g / |g| with g = w the slope is w (1 + rho / |w|); |w| is 13."""
    model = line([3.0, 0.0], [0.0, 4.0])
    terms = ready(SAM(rho=0.5, trainer=Quadratic())).objective(model, points(), CLOCK)
    weight, bias = gradients(terms, model)
    torch.testing.assert_close(weight, model.weight * (1 + 0.5 / 13))
    torch.testing.assert_close(bias, model.bias * (1 + 0.5 / 13))


def test_awp_on_a_quadratic() -> None:
    """Every weight of two axes moves by gamma of itself, however large its slope; biases stay."""
    model = line([3.0, 0.0], [0.0, 4.0])
    awp = ready(AWP(gamma=0.1, warmup=1, trainer=Quadratic()))
    weight, bias = gradients(awp.objective(model, points(), CLOCK), model)
    torch.testing.assert_close(weight, 1.1 * model.weight)
    torch.testing.assert_close(bias, model.bias)
    before = gradients(awp.objective(model, points(), Clock(epoch=0)), model)
    assert torch.equal(before[0], model.weight)


@pytest.mark.parametrize(
    "inner", ["standard", "adversarial", "trades", "mart", "free", "fast", "consistency", "sam"]
)
def test_awp_of_no_size_is_the_wrapped_trainer_to_the_bit(inner: str) -> None:
    """With batch norm and dropout, whose mask is the same in both passes."""
    found = []
    for made in (awp(gamma=0, trainer=inner), awp(trainer=inner).trainer):
        trainer = ready(made)
        model, batch = conv_model().train(), points()
        there = moved(trainer, model, batch)
        torch.manual_seed(7)
        terms = trainer.objective(model, there, CLOCK)
        terms.loss.mean().backward()
        more = [terms.more[name] for name in sorted(terms.more)]
        state = [p.grad for p in model.parameters()] + list(model.buffers())
        found.append([there.x, terms.loss, terms.logits, *more, *state])
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("trainer", [AWP(gamma=0.1), SAM(rho=0.5)])
def test_moving_the_weights_leaves_them_and_the_first_passs_statistics(trainer: Trainer) -> None:
    model, batch = conv_model().train(), points()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper: Any = ready(trainer)
    there = moved(wrapper, model, batch)
    torch.manual_seed(3)
    higher = wrapper.objective(model, there, CLOCK).loss.mean()
    assert dict(model.named_buffers())["features.1.num_batches_tracked"] == 1
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    torch.manual_seed(3)
    assert higher > wrapper.trainer.objective(model, there, CLOCK).loss.mean()


def test_a_model_elsewhere_has_its_halves_there() -> None:
    model = Classifier(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    tensors = {"features.weight": torch.eye(2), "head.weight": 3 * torch.eye(2)}
    there, x = Elsewhere(model, tensors), torch.tensor([[1.0, 2.0]])
    assert there(x).tolist() == [[3.0, 6.0]]
    assert there.features(x).tolist() == [[1.0, 2.0]]
    assert there.head(x).tolist() == [[3.0, 6.0]]
    assert not hasattr(Elsewhere(nn.Linear(2, 2), {}), "features")
    twice = Elsewhere(there, {"features.weight": 5 * torch.eye(2)})
    assert twice(x).tolist() == [[15.0, 30.0]]
    assert torch.equal(dict(twice.named_parameters())["head.weight"], 3 * torch.eye(2))


def test_consistency_by_hand() -> None:
    model, batch = normless(), points()
    trainer = ready(Consistency(weight=2.0, temperature=0.5))
    there = moved(trainer, model, batch)
    kit = BenchKit()
    other = kit.augmented(batch, CLOCK, "consistency")
    assert there.twin is not None
    assert THREAT.size(there.twin - other).max() <= THREAT.eps + 1e-6
    terms = trainer.objective(model, there, CLOCK)
    first, second = model(there.x), model(there.twin)
    ce = F.cross_entropy(first, batch.y, reduction="none") / 2
    ce = ce + F.cross_entropy(second, batch.y, reduction="none") / 2
    torch.testing.assert_close(terms.loss, ce + 2 * js(2 * first, 2 * second))
    torch.testing.assert_close(terms.logits, first)


class Anywhere(Attack):
    """Proposes where a search would start."""

    name = "anywhere"

    def perturb(
        self,
        victim: Victim,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        rng: Rng,
        target: Tensor | None = None,
    ) -> Tensor:
        return threat.random_start(x, rng)


def test_the_two_views_of_consistency_are_attacked_from_different_starts() -> None:
    batch = points()
    there = moved(ready(Consistency(attack=Anywhere())), normless(), batch)
    other = BenchKit().augmented(batch, CLOCK, "consistency")
    assert there.twin is not None
    apart = ((there.twin - other) - (there.x - batch.x)).abs()
    assert (apart > 0.2 * THREAT.eps).float().mean() > 0.5


@pytest.mark.parametrize("trainer", [Trades(), Mart(), awp(trainer="trades"), SAM(), Consistency()])
def test_in_bfloat16_the_gradient_is_nearly_that_of_float32(trainer: Trainer) -> None:
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model, batch = normless().train(), points()
        prepared = ready(trainer)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            there = batch.moved((batch.x + 0.01).clamp(0, 1))
            terms = prepared.objective(model, there, CLOCK)
        assert terms.loss.dtype == torch.float32
        found.append(torch.cat([g.flatten() for g in gradients(terms, model)]))
    assert F.cosine_similarity(found[0], found[1], dim=0) > 0.99


def test_attacks_are_by_default_those_of_the_papers() -> None:
    assert Adversarial().attack == PGD()
    assert Fast().attack == FGSM(random_start=True)
    assert Trades().attack == Mart().attack == PGD(steps=10, noise=0.001)
