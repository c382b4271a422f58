"""What the terminal shows while long work runs: bars on a terminal, else lines, on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from robustkit.interfaces import Clock
    from robustkit.records import EpochLine


class Bars:
    """A context that draws bars with time left where stderr is a terminal.

    Nothing is drawn before the first step: until then it can travel to another process.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def note(self, line: str) -> None:
        """Show a line above the bars."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class TrainProgress(Bars):
    """Epochs with their accuracies, and the steps of the one that runs."""

    def __init__(self) -> None:
        super().__init__()
        self._task: TaskID | None = None

    def stage(self, line: str) -> None:
        """Hear that something else begins."""
        self.note(line)
        if self._task is not None:
            self.bars.stop()
            self.bars.remove_task(self._task)
            self._task = None

    def step(self, clock: Clock) -> None:
        """Hear that a step is about to be taken."""
        if self._task is None:
            self.bars.start()
            self._task = self.bars.add_task("train", total=clock.steps, status="")
        self.bars.update(self._task, completed=clock.step)
        if clock.step + 1 == clock.steps:
            self.bars.stop()

    def epoch(self, line: EpochLine) -> None:
        """Hear how an epoch ended."""
        parts = [f"epoch {line.epoch:>3}", f"loss {line.loss:.4f}"]
        for name, value in (
            ("train", line.train_accuracy),
            ("held-out", line.heldout_accuracy),
            ("adversarial", line.heldout_adversarial),
        ):
            if value is not None:
                parts.append(f"{name} {100 * value:.1f} %")
        if "diversity" in line.more:
            parts.append(f"diversity {100 * line.more['diversity']:.0f} %")
        self.note("  ".join([*parts, f"{line.seconds:.1f} s"]))
        if line.warning:
            self.note(f"  warning: {line.warning}")


class SampleProgress(Bars):
    """How many images are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self._task: TaskID | None = None

    def update(self, done: int, total: int) -> None:
        """Hear that so many of all images are drawn."""
        if self._task is None:
            self.bars.start()
            self._task = self.bars.add_task("draw", total=total, status="")
        self.bars.update(self._task, completed=done)


class EvalProgress(Bars):
    """Each attack's progress, with the bound on robust accuracy that holds so far."""

    def __init__(self) -> None:
        super().__init__()
        self._tasks: dict[str, TaskID] = {}
        self._part = self._line = self._said = ""

    def update(self, attack: str, part: str, done: int, total: int, bound: float) -> None:
        """Hear that `done` of `total` units of an attack are done, and at most `bound` robust."""
        status = f"{part}: robust <= {100 * bound:.1f} %"
        if not self._tasks:
            self.bars.start()
        if attack not in self._tasks:
            self._tasks[attack] = self.bars.add_task(attack, total=total, status=status)
        self.bars.update(self._tasks[attack], completed=done, total=total, status=status)
        if not self.console.is_terminal:
            if part != self._part:
                self._say(self._line)  # what the part before has left
            self._part, self._line = part, f"{attack}: {status}"
            if done == total:
                self._say(self._line)

    def _say(self, line: str) -> None:
        if line != self._said:
            self.note(line)
            self._said = line
