"""Learning with adversary: the attacks and the trainers of Huang et al. 2015."""

from __future__ import annotations

from robustkit import hookimpl


@hookimpl
def register_attacks() -> dict[str, str]:
    attacks = "robustkit_plugins.learning_with_adversary.attacks"
    return {
        "adv-alpha": f"{attacks}:AdvAlpha",
        "adv-loss": f"{attacks}:AdvLoss",
        "adv-loss-sign": f"{attacks}:AdvLossSign",
    }


@hookimpl
def register_trainers() -> dict[str, str]:
    trainers = "robustkit_plugins.learning_with_adversary.trainers"
    return {
        "goodfellow": f"{trainers}:Goodfellow",
        "lwa": f"{trainers}:LWA",
        "lwa-representation": f"{trainers}:LWARepresentation",
    }


@hookimpl
def register_recipes() -> dict[str, str]:
    names = ("goodfellow", "lwa", "lwa-representation")
    return {
        name: f"robustkit_plugins.learning_with_adversary:{name}.toml"
        for method in names
        for name in (method, f"{method}-mnist")
    }


@hookimpl
def register_tables() -> dict[str, str]:
    names = ("lwa-mnist-mlp", "lwa-mnist-lenet")
    return {name: f"robustkit_plugins.learning_with_adversary:{name}.table.toml" for name in names}
