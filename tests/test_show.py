from __future__ import annotations

import pytest

from robustkit.cli.show import EvalProgress


def test_what_is_no_terminal_hears_once_what_each_part_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with EvalProgress() as progress:
        for part, done, bound in (
            ("apgd-ce", 10, 0.9),
            ("apgd-ce", 20, 0.8),
            ("apgd-t", 30, 0.7),
            ("apgd-t", 40, 0.6),
            ("apgd-t", 40, 0.6),
        ):
            progress.update("autoattack", part, done, 40, bound)
        progress.update("pgd", "pgd", 5, 40, 0.7)
    assert capsys.readouterr().err.splitlines() == [
        "autoattack: apgd-ce: robust <= 80.0 %",
        "autoattack: apgd-t: robust <= 60.0 %",
    ]
