"""The hooks: each returns {name: "module:Class"}, and the class is imported when it is needed.

A plugin is a module with functions of these names under `@robustkit.hookimpl`, named by an entry
point of the group "robustkit".
"""

from __future__ import annotations

import pluggy

GROUP = "robustkit"
hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def register_attacks() -> dict[str, str]:
    """Give attacks: classes of robustkit.Attack."""
    return {}


@hookspec
def register_losses() -> dict[str, str]:
    """Give losses: classes of robustkit.Loss."""
    return {}


@hookspec
def register_trainers() -> dict[str, str]:
    """Give trainers: classes of robustkit.Trainer."""
    return {}


@hookspec
def register_generators() -> dict[str, str]:
    """Give generators: classes of robustkit.Generator."""
    return {}


@hookspec
def register_models() -> dict[str, str]:
    """Give architectures: classes of robustkit.Architecture."""
    return {}


@hookspec
def register_datasets() -> dict[str, str]:
    """Give data sets: classes of robustkit.Dataset."""
    return {}


@hookspec
def register_analyses() -> dict[str, str]:
    """Give analyses: functions of records or models."""
    return {}


@hookspec
def register_commands() -> dict[str, str]:
    """Give commands of the command line: functions that typer understands."""
    return {}


@hookspec
def register_recipes() -> dict[str, str]:
    """Give recipes: {name: "package:file.toml"}; `--plugin NAME` starts from the one so named."""
    return {}


@hookspec
def register_tables() -> dict[str, str]:
    """Give tables: {name: "package:file.toml"}; `reproduce NAME` makes the one so named."""
    return {}
