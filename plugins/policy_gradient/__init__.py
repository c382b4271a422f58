"""Classification as a decision that is rewarded: the losses of Gupta 2020 and of Kim 2021."""

from __future__ import annotations

from robustkit import hookimpl


@hookimpl
def register_losses() -> dict[str, str]:
    losses = "robustkit_plugins.policy_gradient.losses"
    return {
        "policy-gradient": f"{losses}:PolicyGradient",
        "policy-warmup": f"{losses}:PolicyWarmup",
        "two-phase": f"{losses}:TwoPhase",
    }


@hookimpl
def register_recipes() -> dict[str, str]:
    names = (
        "policy-gradient",
        "policy-gradient-mnist",
        "policy-gradient-cifar10",
        "policy-loss-mnist",
        "policy-loss-cifar10",
        "policy-loss-trades-cifar10",
    )
    return {name: f"robustkit_plugins.policy_gradient:{name}.toml" for name in names}


@hookimpl
def register_tables() -> dict[str, str]:
    names = (
        "policy-gradient-cifar10",
        "policy-loss-mnist",
        "policy-loss-cifar10",
        "policy-loss-trades-cifar10",
    )
    return {name: f"robustkit_plugins.policy_gradient:{name}.table.toml" for name in names}
