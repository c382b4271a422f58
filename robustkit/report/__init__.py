"""Records to HTML, Markdown, terminal and plots. Reads files only and never imports torch."""

from __future__ import annotations

from robustkit.report.collect import Evaluation, Run, collect

__all__ = ["Evaluation", "Run", "collect"]
