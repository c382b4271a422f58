"""What robustkit brings itself, through the same door as every plugin."""

from __future__ import annotations

from robustkit.hookspecs import hookimpl


@hookimpl
def register_attacks() -> dict[str, str]:
    return {
        "fgsm": "robustkit.attacks.pgd:FGSM",
        "pgd": "robustkit.attacks.pgd:PGD",
        "mi-fgsm": "robustkit.attacks.momentum:MIFGSM",
        "ni-fgsm": "robustkit.attacks.momentum:NIFGSM",
        "di-fgsm": "robustkit.attacks.momentum:DIFGSM",
        "ti-fgsm": "robustkit.attacks.momentum:TIFGSM",
        "vmi-fgsm": "robustkit.attacks.momentum:VMIFGSM",
        "apgd-ce": "robustkit.attacks.apgd:APGDCE",
        "apgd-dlr": "robustkit.attacks.apgd:APGDDLR",
        "apgd-t": "robustkit.attacks.apgd:APGDTargeted",
        "fab": "robustkit.attacks.fab:FAB",
        "fab-t": "robustkit.attacks.fab:FABTargeted",
        "deepfool": "robustkit.attacks.deepfool:DeepFool",
        "ddn": "robustkit.attacks.ddn:DDN",
        "fmn": "robustkit.attacks.fmn:FMN",
        "square": "robustkit.attacks.square:Square",
        "random-noise": "robustkit.attacks.noise:RandomNoise",
        "autoattack": "robustkit.attacks.autoattack:AutoAttack",
        "swift": "robustkit.attacks.swift:Swift",
    }


@hookimpl
def register_losses() -> dict[str, str]:
    return {
        "cross-entropy": "robustkit.losses.cross_entropy:CrossEntropy",
        "boosted-cross-entropy": "robustkit.losses.boosted:BoostedCrossEntropy",
        "margin": "robustkit.losses.margin:Margin",
        "dlr": "robustkit.losses.margin:DLR",
    }


@hookimpl
def register_trainers() -> dict[str, str]:
    return {
        "standard": "robustkit.trainers.standard:Standard",
        "adversarial": "robustkit.trainers.adversarial:Adversarial",
        "trades": "robustkit.trainers.trades:Trades",
        "mart": "robustkit.trainers.mart:Mart",
        "free": "robustkit.trainers.free:Free",
        "fast": "robustkit.trainers.fast:Fast",
        "awp": "robustkit.trainers.perturbed_weights:AWP",
        "sam": "robustkit.trainers.perturbed_weights:SAM",
        "consistency": "robustkit.trainers.consistency:Consistency",
    }


@hookimpl
def register_models() -> dict[str, str]:
    return {
        "cnn": "robustkit.models.cnn:CNN",
        "generator-classifier": "robustkit.models.of_generator:GeneratorClassifier",
        "lenet5": "robustkit.models.lenet:LeNet5",
        "mlp": "robustkit.models.mlp:MLP",
        "preactresnet18": "robustkit.models.preactresnet:PreActResNet18",
        "resnet18": "robustkit.models.resnet:ResNet18",
        "torchvision": "robustkit.models.torchvision:TorchVision",
        "vgg13": "robustkit.models.vgg:VGG13",
        "wideresnet": "robustkit.models.wideresnet:WideResNet",
        "wideresnet-16-10": "robustkit.models.wideresnet:WideResNet16x10",
        "wideresnet-28-10": "robustkit.models.wideresnet:WideResNet28x10",
        "wideresnet-34-10": "robustkit.models.wideresnet:WideResNet34x10",
        "wideresnet-40-10": "robustkit.models.wideresnet:WideResNet40x10",
    }


@hookimpl
def register_datasets() -> dict[str, str]:
    return {
        "digits": "robustkit.data.digits:Digits",
        "mnist": "robustkit.data.mnist:MNIST",
        "fashion-mnist": "robustkit.data.mnist:FashionMNIST",
        "cifar10": "robustkit.data.cifar:CIFAR10",
        "cifar100": "robustkit.data.cifar:CIFAR100",
        "plane": "robustkit.data.plane:Plane",
        "svhn": "robustkit.data.svhn:SVHN",
        "tiny-imagenet": "robustkit.data.tiny_imagenet:TinyImageNet",
        "folder": "robustkit.data.folder:Folder",
        "npz": "robustkit.data.npz:Npz",
        "huggingface": "robustkit.data.huggingface:HuggingFace",
        "subset": "robustkit.data.subset:ClassSubset",
    }


@hookimpl
def register_recipes() -> dict[str, str]:
    return {
        "standard": "robustkit.recipes:standard.toml",
        "adversarial": "robustkit.recipes:adversarial.toml",
        "trades": "robustkit.recipes:trades.toml",
        "mart": "robustkit.recipes:mart.toml",
        "free": "robustkit.recipes:free.toml",
        "fast": "robustkit.recipes:fast.toml",
        "awp": "robustkit.recipes:awp.toml",
        "sam": "robustkit.recipes:sam.toml",
        "consistency": "robustkit.recipes:consistency.toml",
        "adversarial-cifar10": "robustkit.recipes:adversarial-cifar10.toml",
        "trades-cifar10": "robustkit.recipes:trades-cifar10.toml",
        "mart-cifar10": "robustkit.recipes:mart-cifar10.toml",
        "free-cifar10": "robustkit.recipes:free-cifar10.toml",
        "fast-cifar10": "robustkit.recipes:fast-cifar10.toml",
        "awp-cifar10": "robustkit.recipes:awp-cifar10.toml",
    }


@hookimpl
def register_tables() -> dict[str, str]:
    return {
        "baselines-cifar10": "robustkit.recipes:baselines-cifar10.table.toml",
        "trainers-digits": "robustkit.recipes:trainers-digits.table.toml",
        "trainers-mnist": "robustkit.recipes:trainers-mnist.table.toml",
    }
