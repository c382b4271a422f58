"""Models in every format: the same verdicts, exact fits, and nothing that runs unless allowed."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import sys
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robustkit.catalog import build
from robustkit.cli.zoo import weights_of
from robustkit.engine.evaluate import evaluate
from robustkit.engine.identity import hash_module
from robustkit.engine.victim import frozen
from robustkit.errors import BadValueError, RobustkitError, UnsafeFileError
from robustkit.models import load_model
from robustkit.models.common import Normalise
from robustkit.models.files import Given
from robustkit.models.formats.torchscript import reaching
from robustkit.models.mlp import MLP
from robustkit.models.torchvision import TorchVision
from robustkit.records import RunFolder
from robustkit.threat import ThreatModel

SHAPE, CLASSES = (1, 4, 3), ("a", "b", "c")
ARCHITECTURE = MLP(hidden=(5,))
IMAGE = torch.linspace(0, 1, 12).view(1, *SHAPE)
IMAGES = Given(shape=SHAPE, classes=CLASSES)
WEIGHTS = replace(IMAGES, architecture=ARCHITECTURE)


def small(mean: float = 0.2, std: float = 0.3) -> nn.Module:
    torch.manual_seed(1)
    return ARCHITECTURE.build(SHAPE, len(CLASSES), [mean], [std]).eval()


def export(model: nn.Module, x: torch.Tensor, path: Path, batch: object = None) -> None:
    batch = batch or torch.export.Dim("n", min=1)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    torch.export.save(exported, path)


def trace(model: nn.Module, x: torch.Tensor, path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.trace(model, x).save(path)


def onnx_file(model: nn.Module, x: torch.Tensor, path: Path, **options: object) -> None:
    pytest.importorskip("onnx2torch")
    options = {"dynamic_axes": {"x": {0: "n"}}, **options}
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            model, (x,), path, dynamo=False, input_names=["x"], opset_version=17, **options
        )


def bare(model: nn.Module) -> dict[str, torch.Tensor]:
    """Give the weights without the normalisation's."""
    inside = [name for name, part in model.named_modules() if isinstance(part, Normalise)]
    return {k: w for k, w in model.state_dict().items() if k.rpartition(".")[0] not in inside}


def refusal(path: Path, what: str, given: Given = WEIGHTS, kind: type = BadValueError) -> str:
    with warnings.catch_warnings(record=True) as warned, pytest.raises(RobustkitError) as caught:
        load_model(path, "cpu", given)
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert warned == []
    assert "\n" not in message
    assert str(path) in message
    assert what in message, message
    return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model in each format of programs."""
    folder = tmp_path_factory.mktemp("small")
    model, x = small(), torch.rand(2, *SHAPE)
    export(model, x, folder / "x.pt2")
    trace(model, x, folder / "x.ts")
    return folder


# The same weights give the same verdicts


def own(model, x, path):
    path.write_bytes(weights_of("digits-policy-gradient").read_bytes())


def with_data_parallel(model, x, path):
    weights = {f"module.{name}": w for name, w in model.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 3, "optimizer": {"state": {}}}, path)


FORMATS: dict[str, tuple[Callable[..., None], dict[str, object]]] = {
    "model.pt": (own, {}),
    "weights.pt": (lambda m, x, path: torch.save(m.state_dict(), path), {"architecture": "cnn"}),
    "checkpoint.pth": (with_data_parallel, {"architecture": "cnn"}),
    "x.safetensors": (lambda m, x, path: save_file(m.state_dict(), path), {"architecture": "cnn"}),
    "bare.safetensors": (
        lambda m, x, path: save_file(bare(m), path),
        {"architecture": "cnn", "mean": "own", "std": "own"},
    ),
    "x.pt2": (export, {}),
    "x.ts": (trace, {}),
    "x.onnx": (onnx_file, {}),
    "pickle.pt": (lambda m, x, path: torch.save(m, path), {"unsafe": True}),
}


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[nn.Module], np.ndarray]:
    """Attack a model on 64 points: a row a point of what was predicted, before and after."""
    images = build("dataset", "digits").split("test")

    def attack(model: nn.Module) -> np.ndarray:
        folder = RunFolder(tmp_path_factory.mktemp("run"))
        evaluate(
            model, images, [build("attack", {"name": "pgd", "steps": 10})],
            [ThreatModel("linf", 0.25)], folder=folder, model_name="m",
            model_hash=hash_module(model), data={"name": "digits"}, limit=64, device="cpu",
        )  # fmt: skip
        ((_, points),) = folder.results()
        return np.stack((points.ids, points.clean_predictions, points.adversarial_predictions))

    return attack


@pytest.fixture(scope="module")
def zoo_verdicts(verdicts) -> np.ndarray:
    return verdicts(load_model(weights_of("digits-policy-gradient")).module)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_weights_give_the_same_verdicts(name, verdicts, zoo_verdicts, tmp_path):
    zoo = load_model(weights_of("digits-policy-gradient"))
    write, said = FORMATS[name]
    write(zoo.module, torch.rand(2, *zoo.shape), tmp_path / name)
    if "architecture" in said:
        said = {**said, "architecture": build("model", zoo.architecture)}
    for number in ("mean", "std"):
        if number in said:
            buffer = getattr(zoo.module.features[0], number)
            said = {**said, number: tuple(buffer.flatten().tolist())}
    given = Given(shape=zoo.shape, classes=zoo.classes, **said)
    loaded = load_model(tmp_path / name, "cpu", given)
    assert (loaded.shape, loaded.classes) == (zoo.shape, zoo.classes)
    found = verdicts(loaded.module)
    assert (found == zoo_verdicts).all()
    again = pickle.loads(pickle.dumps(loaded.again))()  # as another process makes it
    assert hash_module(again) == hash_module(loaded.module)
    assert 10 < (found[1] != found[2]).sum() < 64


# Bare weights


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.safetensors"])
def test_weights_without_what_they_belong_to(tmp_path, name):
    save = save_file if name.endswith("safetensors") else torch.save
    save(bare(small()), tmp_path / name)
    refusal(tmp_path / name, "--arch NAME", IMAGES)
    refusal(tmp_path / name, "--dataset NAME", Given(ARCHITECTURE))


def test_normalisation_is_never_guessed(tmp_path):
    path, x = tmp_path / "x.pt", torch.rand(3, *SHAPE)
    torch.save(bare(small()), path)
    refusal(path, "give --mean and --std")
    refusal(path, "give --mean and --std", replace(WEIGHTS, mean=(0.2,)))
    refusal(path, "2 numbers for --mean, and 1", replace(WEIGHTS, mean=(0.2, 0.3)))
    loaded = load_model(path, "cpu", replace(WEIGHTS, mean=(0.2,), std=(0.3,)))
    assert torch.equal(loaded.module(x), small()(x))
    plain = load_model(path, "cpu", replace(WEIGHTS, mean=(0.0,), std=(1.0,)))
    assert torch.equal(plain.module(x), small(0, 1)(x))
    torch.save(small().state_dict(), path)
    assert torch.equal(load_model(path, "cpu", WEIGHTS).module(x), small()(x))
    refusal(path, "holds its own normalisation", replace(WEIGHTS, mean=(0.2,), std=(0.3,)))


def test_weights_of_torchvision_fit_under_their_own_names(tmp_path):
    import torchvision

    net = torchvision.models.mobilenet_v3_small(num_classes=3).eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    given = Given(TorchVision(arch="mobilenet_v3_small"), (3, 32, 32), CLASSES, (0.5,), (0.25,))
    x = torch.rand(2, 3, 32, 32)
    loaded = load_model(tmp_path / "net.pth", "cpu", given)
    assert torch.allclose(loaded.module(x), net((x - 0.5) / 0.25), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda w: {k: v for k, v in w.items() if k != "head.bias"}, "'head.bias' are missing"),
        (lambda w: {**w, "more": torch.zeros(1)}, "'more' belong to no part"),
        (lambda w: {f"model.{k}": v for k, v in w.items()}, "and 'model.features.2.weight' is"),
        (
            lambda w: {**{f"module.{k}": v for k, v in w.items()}, "head.bias": w["head.bias"]},
            "'features.2.weight' are missing",
        ),
        (lambda w: {**w, "head.bias": torch.zeros(4)}, "have shape (4,), but the architecture"),
        (lambda w: {**w, "head.bias": torch.zeros(3).int()}, "'head.bias' are torch.int32"),
        (lambda w: {**w, "head.bias": torch.full((3,), np.nan)}, "'head.bias' are NaN"),
        (lambda w: {"net": w, "ema": w}, "several sets of weights ('net', 'ema')"),
        (lambda w: {**w, "epoch": 3}, "neither a robustkit model"),
        (lambda w: {}, "neither a robustkit model"),
    ],
)
def test_weights_that_do_not_fit_exactly(tmp_path, change, what):
    torch.save(change(bare(small())), tmp_path / "x.pt")
    refusal(tmp_path / "x.pt", what, replace(WEIGHTS, mean=(0.0,), std=(1.0,)))


def test_robustkits_own_files_know_better(tmp_path):
    path = weights_of("digits-policy-gradient")
    refusal(path, "is of architecture 'cnn', not 'mlp': leave --arch out")
    refusal(path, "holds its own normalisation", Given(mean=(0.1,)))


# Programs


def test_programs_come_with_the_images_they_are_for(folder):
    for path in folder.iterdir():
        refusal(path, "--dataset NAME", Given())
        refusal(path, "--arch is for bare weights only")
        refusal(path, "--std is for bare weights only", replace(IMAGES, std=(1.0,)))


@pytest.mark.parametrize("name", ["x.pt2", "x.ts"])
def test_a_program_has_no_modes_and_takes_any_number_of_images(folder, name):
    program, model = load_model(folder / name, "cpu", IMAGES).module, small()
    with frozen(program, training=True):
        pass
    program.train()
    assert not program.training
    assert not any(p.requires_grad for p in program.parameters())
    for n in (1, 2, 7):
        x = torch.rand(n, *SHAPE, requires_grad=True)
        assert torch.equal(program(x), model(x))
        (gradient,) = torch.autograd.grad(program(x).square().sum(), x)
        assert torch.equal(gradient, torch.autograd.grad(model(x).square().sum(), x)[0])


def test_programs_of_equal_weights_are_told_apart(folder, tmp_path):
    other = rewritten(folder / "x.ts", tmp_path / "y.ts", "torch.sub(x", "torch.add(x")
    programs = [load_model(path, "cpu", IMAGES).module for path in (folder / "x.ts", other)]
    assert not torch.equal(programs[0](IMAGE), programs[1](IMAGE))
    assert hash_module(programs[0]) != hash_module(programs[1])


class Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.sum(1), x


@pytest.mark.parametrize(
    ("model", "batch", "what"),
    [
        (Odd(), None, "not a program of images alone, as one tensor, to logits"),
        (nn.Flatten(), torch.export.Dim.STATIC, "takes 2 images at a time only"),
    ],
)
def test_other_exported_programs(tmp_path, model, batch, what):
    export(model, torch.rand(2, *SHAPE), tmp_path / "x.pt2", batch)
    refusal(tmp_path / "x.pt2", what, IMAGES)


def test_onnx_files_that_cannot_be_attacked(tmp_path, monkeypatch):
    path, x = tmp_path / "x.onnx", torch.rand(2, *SHAPE)
    onnx_file(small(), x, path, dynamic_axes={})
    refusal(path, "takes 2 images at a time only", IMAGES)
    onnx_file(Odd(), x, path)
    refusal(path, "has 1 inputs and 2 outputs", IMAGES)
    path.write_bytes(b"\x08\x07\x12\x04\xff\xff")
    refusal(path, "is damaged", IMAGES)
    path.write_text("<html>")
    refusal(path, "an HTML", IMAGES)
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    path.write_bytes(b"\x08\x07")
    refusal(path, "pip install 'robustkit[onnx]'", IMAGES)


# What a file would run

COMPUTES = "    return torch.div(torch.sub(x, mean), std)"


def text_of(path: Path, part: str) -> str:
    """Read the one part of a zip whose name ends so."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(part))
        return archive.read(name).decode()


def rewritten(path: Path, to: Path, old: str, new: str) -> Path:
    """Write a zip anew with a text, that one of its parts holds, changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (n for n, content in parts.items() if old.encode() in content)
    parts[name] = parts[name].replace(old.encode(), new.encode(), 1)
    with zipfile.ZipFile(to, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return to


RUNS = "__import__('os').system('touch MARK')"


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def test_a_size_that_is_python_is_not_evaluated(folder, tmp_path, monkeypatch):
    """torch's loader evaluates it, as --unsafe shows."""
    monkeypatch.chdir(tmp_path)
    text = text_of(folder / "x.pt2", "models/model.json")
    (size, *_) = re.findall(r"Symbol\([^)]*\)", text)
    path = rewritten(folder / "x.pt2", tmp_path / "x.pt2", size, RUNS)
    refusal(path, f"its program holds '{RUNS}'", IMAGES, UnsafeFileError)
    assert not Path("MARK").exists()
    with pytest.raises(RobustkitError):
        load_model(path, "cpu", replace(IMAGES, unsafe=True))
    assert Path("MARK").exists()


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("torch.ops.aten.relu.default", "torch.hub.load", "'torch.hub.load'"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.from_file.default", "from_file"),
        ("torch.ops.aten.relu.default", "_operator.methodcaller", "methodcaller"),
        ("torch.ops.aten.relu.default", "torch.ops.aten.relu.py_impl.__call__", "__call__"),
        ("torch.ops.aten.relu.default", "torch.ops.load_library", "load_library"),
        ('"relu"', '"relu = evil()  #"', "'relu = evil()  #'"),
        ('"arg": {"as_int": 1}', '"arg": {"as_operator": "torch.hub.load"}', "torch.hub.load"),
    ],
)
def test_what_a_graph_may_not_hold(folder, tmp_path, old, new, what):
    path = rewritten(folder / "x.pt2", tmp_path / "x.pt2", old, new)
    refusal(path, what, IMAGES, UnsafeFileError)


def test_what_is_only_said_of_a_graph_is_dropped(folder, tmp_path, monkeypatch):
    """Guards are Python; sample inputs are a pickle."""
    monkeypatch.chdir(tmp_path)
    old, new = '"guards_code": []', f'"guards_code": ["{RUNS} == 1"]'
    path = rewritten(folder / "x.pt2", tmp_path / "x.pt2", old, new)
    evil = pickle.dumps(Evil(tmp_path / "MARK"))
    path = with_part(path, tmp_path / "y.pt2", "data/sample_inputs/model.pt", evil)
    assert torch.equal(load_model(path, "cpu", IMAGES).module(IMAGE), small()(IMAGE))
    assert not Path("MARK").exists()


def with_part(path: Path, to: Path, part: str, content: bytes) -> Path:
    """Write a zip anew with a part replaced, or added."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(to, "w") as new:
        root = archive.namelist()[0].partition("/")[0]
        for name in archive.namelist():
            if name != f"{root}/{part}":
                new.writestr(name, archive.read(name))
        new.writestr(f"{root}/{part}", content)
    return to


def test_pickles_and_compiled_code_in_an_exported_program(folder, tmp_path):
    mark, path = tmp_path / "MARK", tmp_path / "x.pt2"
    buffer = io.BytesIO()
    torch.save(Evil(mark), buffer)
    old, new = '"use_pickle": false', '"use_pickle": true'
    rewritten(folder / "x.pt2", path, old, new)
    path = with_part(path, tmp_path / "y.pt2", "data/weights/weight_0", buffer.getvalue())
    refusal(path, "the pickle 'weight_0'", IMAGES, UnsafeFileError)
    path = with_part(folder / "x.pt2", path, "data/aotinductor/model/x.so", b"ELF")
    refusal(path, "'data/aotinductor/model/x.so'", IMAGES, UnsafeFileError)
    old = with_part(folder / "x.pt2", path, "data/weights/model.pt", buffer.getvalue())
    assert torch.equal(load_model(old, "cpu", IMAGES).module(IMAGE), small()(IMAGE))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("before", "what"),
    [
        ('torch.save(x, "MARK")', "save"),
        ('_1 = torch.from_file("MARK", True, 3)', "from_file"),
        ('getattr(torch, "\\x73ave")(x, "MARK")', "save"),
        ("_1 = ops.foo.bar(x)", "ops.foo"),
        ('_1 = getattr(ops, "foo").bar(x)', "ops."),
        ("def __setstate__(self, state: int) -> NoneType:\n      return None", "__setstate__"),
    ],
)
def test_scripts_that_reach_beyond_tensors(folder, tmp_path, monkeypatch, before, what):
    monkeypatch.chdir(tmp_path)
    path = rewritten(folder / "x.ts", tmp_path / "x.ts", COMPUTES, f"    {before}\n{COMPUTES}")
    refusal(path, f"its program uses {what}", IMAGES, UnsafeFileError)
    assert not Path("MARK").exists()


def test_harmless_words_of_scripts():
    """torchvision has a folder `ops`, and torch's own operators are called so, too."""
    for text in ("a : __torch__.torchvision.ops.misc.Conv", "ops.prim.NumToTensor(x)"):
        assert reaching({"x/code/a.py": text.encode()}) == []


def test_what_unsafe_lets_happen(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    allowed = replace(IMAGES, unsafe=True)
    saves = f'    torch.save(x, "MARK")\n{COMPUTES}'
    path = rewritten(folder / "x.ts", tmp_path / "x.ts", COMPUTES, saves)
    load_model(path, "cpu", allowed).module(IMAGE)
    assert Path("MARK").exists()
    torch.save(small(), tmp_path / "x.pt")
    refusal(tmp_path / "x.pt", "give --unsafe", IMAGES, UnsafeFileError)
    assert torch.equal(load_model(tmp_path / "x.pt", "cpu", allowed).module(IMAGE), small()(IMAGE))
    torch.save({"state_dict": bare(small()), "by": Path("me")}, tmp_path / "x.pt")
    refusal(tmp_path / "x.pt", "would run pathlib", WEIGHTS, UnsafeFileError)
    given = replace(WEIGHTS, mean=(0.2,), std=(0.3,), unsafe=True)
    assert torch.equal(load_model(tmp_path / "x.pt", "cpu", given).module(IMAGE), small()(IMAGE))
    (tmp_path / "x.pt").write_bytes(b"\x80\x04no pickle")
    refusal(tmp_path / "x.pt", "damaged", allowed)


# Damage


def fuzz(path: Path, to: Path, given: Given, files: int, *, checked: bool) -> None:
    """Damage a file: it is refused in one line, or, where its bytes are `checked`, the same."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"fuzz seed {seed}")
    rng, whole, refused = random.Random(seed), path.read_bytes(), 0
    for case in range(files):
        data = bytearray(whole)
        if case % 3:
            for _ in range(case % 3):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        to.write_bytes(data)
        try:
            module = load_model(to, "cpu", given).module
        except RobustkitError as error:
            refused += 1
            assert "\n" not in str(error), (seed, case)
            continue
        except BaseException as error:
            raise AssertionError(f"seed {seed}, case {case}: {error!r}") from error
        assert not checked or torch.equal(module(IMAGE), small()(IMAGE)), (seed, case)
    assert refused >= files / 4


@pytest.mark.parametrize("name", ["x.pt2", "x.ts"])
def test_damaged_programs(folder, tmp_path, name):
    fuzz(folder / name, tmp_path / name, IMAGES, 20, checked=True)


def test_damaged_safetensors(tmp_path):
    save_file(small().state_dict(), tmp_path / "x.safetensors")
    fuzz(tmp_path / "x.safetensors", tmp_path / "y.safetensors", WEIGHTS, 60, checked=False)


def test_damaged_onnx(tmp_path):
    onnx_file(small(), IMAGE, tmp_path / "x.onnx")
    fuzz(tmp_path / "x.onnx", tmp_path / "y.onnx", IMAGES, 30, checked=False)


@pytest.mark.parametrize("name", ["x.pt2", "x.ts", "x.pt"])
def test_a_small_zip_does_not_unpack_to_a_vast_one(tmp_path, name):
    with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in ("constants.pkl", "archive_format", "data.pkl"):
            archive.writestr(f"model/{part}", bytes(2**25))
    refusal(tmp_path / name, "unpacks to more", IMAGES)
