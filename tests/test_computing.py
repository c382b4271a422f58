"""How a training computes: precision, skipped steps, memory format, compilation, kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from pydantic import PrivateAttr
from test_fit import Breaks
from torch import Tensor, nn
from torch.nn import functional as F
from training import same_run, small, weights

from robustkit.component import slot
from robustkit.engine.computing import adapt, kernels, require_compiler
from robustkit.engine.fit import fit
from robustkit.engine.fitting import Fitting
from robustkit.engine.processes import Processes
from robustkit.engine.resolve import build
from robustkit.engine.verdict import exact
from robustkit.engine.victim import CountingVictim
from robustkit.errors import BadValueError
from robustkit.interfaces import At, Batch, Clock, Loss, Terms, Trainer
from robustkit.recipe import Fit
from robustkit.records import RunFolder
from robustkit.trainers.adversarial import Adversarial

CPU = torch.device("cpu")


def fitting(path: Path, *settings: tuple[str, Any], fabric: Fabric | None = None) -> Fitting:
    """Give a training that is about to begin."""
    recipe = small(*settings)
    processes = Processes(fabric or Fabric(accelerator="cpu", devices=1))
    return Fitting(processes, recipe, build(recipe), RunFolder(path))


class Kinds(Loss):
    """Cross-entropy that notes the kind of numbers it is given."""

    name = "kinds"
    _seen: list[torch.dtype] = PrivateAttr(default_factory=list)

    def __call__(self, logits: Tensor, y: Tensor, at: At = At()) -> Tensor:  # noqa: B008
        self._seen.append(logits.dtype)
        return F.cross_entropy(logits, y, reduction="none")


class Halves(Trainer):
    """Asks for the features and the head apart, as Latent does."""

    name = "halves"
    loss: Loss = slot("cross-entropy", "what is minimised")

    def objective(self, model: nn.Module, batch: Batch, clock: Clock) -> Terms:
        logits = model.head(model.features(batch.x))  # type: ignore[operator]
        return Terms(self.loss(logits, batch.y, self._kit.at(batch, clock)), logits)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_attacks_and_losses_are_given_float32(kind: torch.dtype) -> None:
    model = build(small()).model.build((1, 8, 8), 10, [0.5], [0.5])
    adapt(model, Fit(precision="bf16"), CPU)
    victim = CountingVictim(model, 3, CPU, drop=False)
    x = torch.rand(3, 1, 8, 8)
    with torch.autocast("cpu", kind):
        inside = model.features(x)  # type: ignore[operator]
        assert inside.dtype == kind
        assert model.head(inside).dtype == torch.float32  # type: ignore[operator]
        assert model(x).dtype == torch.float32
        assert victim(x).dtype == torch.float32


def test_in_a_step_of_half_precision_no_loss_sees_half_a_number(tmp_path: Path) -> None:
    bf16 = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    work = fitting(tmp_path, ("fit.precision", "bf16"), fabric=bf16)
    first = next(work.batches.epoch(0))
    for kind in (Halves, Adversarial):
        loss = Kinds()
        work.trainer = kind(loss=loss)
        work.trainer.prepare(work.kit)
        work.step(first, Clock(0, 4, 0, 16))
        assert set(loss._seen) == {torch.float32}


def test_bf16_learns_digits(tmp_path: Path) -> None:
    recipe = small(
        ("fit.precision", "bf16"), ("fit.epochs", 4), ("fit.limit", 1000), ("model.hidden", [64])
    )
    record = fit(recipe, RunFolder(tmp_path / "run"), device="cpu")
    assert record.heldout_clean is not None
    assert record.heldout_clean.value > 0.85


def scaled(scale: float) -> Fabric:
    """Give half precision with a scaled gradient, as on a graphics card."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_scaled_step_is_the_plain_one_within_half_precision(
    tmp_path: Path, clip: float | None
) -> None:
    settings: list[tuple[str, Any]] = [
        ("optimizer", {"name": "sgd", "lr": 0.5}), ("trainer.name", "standard"),
        ("model.dropout", 0.0),
    ]  # fmt: skip
    settings += [("optimizer.clip", clip)] if clip else []
    plain = fitting(tmp_path, *settings)
    half = fitting(tmp_path, *settings, fabric=scaled(1024.0))
    batch = next(plain.batches.epoch(0))
    before = [p.detach().clone() for p in plain.model.parameters()]
    for work in (plain, half):
        work.step(batch, Clock(0, 4, 0, 16))
    pairs = zip(plain.model.parameters(), half.model.parameters(), before, strict=True)
    for one, other, start in pairs:
        assert not torch.equal(other, start)
        torch.testing.assert_close(other - start, one - start, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_skipped_step_moves_neither_weights_nor_average(
    tmp_path: Path, clip: float | None
) -> None:
    settings = [("fit.average", 0.9), *([("optimizer.clip", clip)] if clip else [])]
    work = fitting(tmp_path, *settings, fabric=scaled(1024.0))
    assert work.average is not None
    batch = next(work.batches.epoch(0))

    def scale(factor: float) -> None:
        work.processes.load_scaler_state({**work.processes.scaler_state(), "scale": factor})

    def state() -> list[Tensor]:
        models = (work.model, work.kept)
        return [w.detach().clone() for model in models for w in model.parameters()]

    work.step(batch, Clock(2, 4, 7, 16))
    before = state()
    scale(2.0**100)
    for step in (8, 9):
        assert work.step(batch, Clock(2, 4, step, 16)).isfinite().all()
    assert all(torch.equal(w, old) for w, old in zip(state(), before, strict=True))
    assert work.processes.scaler_state()["scale"] == 2.0**98
    assert work.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (1 - 9 / 16))
    scale(1024.0)
    work.step(batch, Clock(2, 4, 10, 16))
    assert not any(torch.equal(w, old) for w, old in zip(state(), before, strict=True))
    assert all(w.isfinite().all() for w in state())


def test_channels_last_is_another_order_of_the_same_numbers(tmp_path: Path) -> None:
    # Below 8 channels torch 2.15 writes beyond its memory on processors without AVX-512.
    settings = (("model", {"name": "resnet18", "width": 8}), ("fit.limit", 100))
    plain, last = (
        fitting(tmp_path, *settings, ("fit.channels_last", value)) for value in (False, True)
    )
    kernel = next(p for p in last.model.parameters() if p.dim() == 4 and p.shape[1] > 1)
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    batch = next(plain.batches.epoch(0))
    for work in (plain, last):
        work.step(batch, Clock(0, 4, 0, 16))
    for one, other in zip(plain.model.parameters(), last.model.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


class Counts(torch.autograd.Function):
    """x @ weight.T that counts its passes, and which gradients they are asked for."""

    forwards = 0
    asked: ClassVar[list[tuple[bool, bool]]] = []

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        Counts.forwards += 1
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight = ctx.needs_input_grad
        Counts.asked.append((of_x, of_weight))
        return grad @ weight if of_x else None, grad.T @ x if of_weight else None


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 64) / 8)

    def forward(self, x: Tensor) -> Tensor:
        return Counts.apply(x.flatten(1), self.weight)


def test_a_step_has_no_pass_and_no_gradient_too_many(tmp_path: Path) -> None:
    """PGD-10: 11 forwards, 10 backwards to the pixels alone and one to the weights alone."""
    work = fitting(tmp_path, ("attack.steps", 10), ("optimizer", {"name": "sgd", "lr": 0.1}))
    work.model = Counting()
    Counts.forwards, Counts.asked[:] = 0, []
    work.step(next(work.batches.epoch(0)), Clock(0, 4, 0, 16))
    assert Counts.forwards == 11
    assert Counts.asked == [(True, False)] * 10 + [(False, True)]


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compile to what torch traced, which needs no compiler; note what weights were traced."""
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        wanted = {t.requires_grad for t in inputs if isinstance(t, nn.Parameter)}
        seen.extend("trained" if want else "frozen" for want in wanted)
        return graph.forward

    real = nn.Module.compile
    torch._dynamo.reset()
    monkeypatch.setattr("robustkit.engine.computing.require_compiler", lambda device: None)
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **options: real(self, backend=backend, **options)
    )
    return seen


def test_a_compiled_model_trains_like_a_plain_one(tmp_path: Path, traced: list[str]) -> None:
    settings = (("fit.limit", 99), ("fit.epochs", 2), ("fit.precision", "bf16"))
    plain, compiled = RunFolder(tmp_path / "plain"), RunFolder(tmp_path / "compiled")
    fit(small(*settings), plain, device="cpu")
    fit(small(*settings, ("fit.compile", True)), compiled, device="cpu")
    assert same_run(plain, compiled) == []
    assert {p.name for p in plain.path.glob("*.*")} >= {"model.pt", "checkpoint.pt"}
    # Two sizes of batches, each inside the attack and outside of it; selection is not compiled.
    assert sorted(traced) == ["frozen"] * 2 + ["trained"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["adversarial", "awp"])
def test_truly_compiled_and_resumed_it_ends_with_the_same_bits(
    tmp_path: Path, trainer: str
) -> None:
    recipe = small(
        ("trainer.name", trainer), ("fit.compile", True), ("fit.limit", 198), ("fit.epochs", 3)
    )
    whole, broken = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "broken")
    fit(recipe, whole, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, broken, device="cpu", progress=Breaks(5))
    torch._dynamo.reset()
    fit(recipe, broken, resume=True, device="cpu")
    assert same_run(whole, broken) == []
    assert (
        weights(whole)["work"]["model"].keys()
        == Fitting(Processes(Fabric(accelerator="cpu", devices=1)), small(), build(small()), whole)
        .model.state_dict()
        .keys()
    )


def test_without_a_compiler_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("No working C++ compiler found\nin a long text")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(BadValueError, match=r"fit.compile needs a C\+\+ compiler.*false") as caught:
        fit(small(("fit.compile", True)), RunFolder(tmp_path / "run"), device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_truly_without_a_compiler_there_is_one_line() -> None:
    import torch._inductor.config as inductor

    torch._dynamo.reset()
    with (
        inductor.patch({"cpp.cxx": ("no-such-compiler",)}),
        pytest.raises(BadValueError, match="no-such-compiler"),
    ):
        require_compiler(CPU)


def test_fast_kernels_are_for_training_and_never_for_verdicts() -> None:
    backends: Any = torch.backends
    conv, matmul = backends.cudnn.conv, backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    card = torch.device("cuda")
    with kernels(card, deterministic=False):
        assert backends.cudnn.benchmark
        assert conv.fp32_precision == matmul.fp32_precision == "tf32" != before[1]
        with exact():
            assert not backends.cudnn.benchmark
            assert conv.fp32_precision == matmul.fp32_precision == "ieee"
        assert backends.cudnn.benchmark
    with kernels(card, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert (conv.fp32_precision, matmul.fp32_precision) == before


def test_the_recipe_says_which_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def record(device: torch.device, *, deterministic: bool) -> Any:
        asked.append(deterministic)
        return kernels(device, deterministic=deterministic)

    monkeypatch.setattr("robustkit.engine.processes.kernels", record)
    for value in (True, False):
        recipe = small(("fit.deterministic", value), ("fit.epochs", 1), ("fit.limit", 50))
        assert fit(recipe, RunFolder(tmp_path / str(value)), device="cpu").finished
    assert asked == [True, False]
