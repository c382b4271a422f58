"""docs/attacks.md lists every attack that comes with robustkit, as it is.

Those of other libraries have a page of their own: see test_bridges.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from robustkit.catalog import installed
from robustkit.component import load_object

TEXT = (Path(__file__).parents[1] / "docs" / "attacks.md").read_text("utf-8")


def test_the_table_of_attacks_is_that_of_the_catalogue() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \| ([\w, ]+) \| (yes|no) \|", TEXT, re.M)
    known = []
    for entry in installed().of_kind("attack"):
        if entry.distribution.startswith("robustkit ") and ":" not in entry.name:
            attack = load_object(entry.target)
            known.append((entry.name, ", ".join(attack.norms), "yes" if attack.minimal else "no"))
    assert sorted(listed) == sorted(known)


def test_its_commands_name_options_that_there_are() -> None:
    for name, option in re.findall(r"--set ([\w-]+)\.(\w+)=", TEXT):
        (entry,) = (e for e in installed().of_kind("attack") if e.name == name)
        assert option in load_object(entry.target).model_fields
