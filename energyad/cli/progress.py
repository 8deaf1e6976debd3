"""Progress on standard error: a bar on a terminal, a line a stage in a log, nothing with --quiet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

from energyad.cli import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class RichProgress:
    """The library's Progress protocol for a person or a log; use it in a `with` statement."""

    def __init__(self, *, drawn: bool = True) -> None:
        self._drawn = drawn and console.messages().is_terminal and not console.is_quiet()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._name, self._total, self._started, self._figures = "", 0, 0.0, ""

    def __enter__(self) -> Self:
        if self._drawn:
            self._progress = _make_progress()
            self._progress.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._finish_stage()
        if self._progress is not None:
            self._progress.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        self._finish_stage()
        self._name, self._total, self._started, self._figures = name, total, time.perf_counter(), ""
        if self._progress is not None:
            self._task = self._progress.add_task(name, total=total, figures="")

    def advance(self, steps: int = 1, *, figures: Mapping[str, float] | None = None) -> None:
        """Steps were done."""
        if figures is not None:
            self._figures = "  ".join(f"{name} {value:.3g}" for name, value in figures.items())
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=steps, figures=self._figures)

    def _finish_stage(self) -> None:
        if not self._name:
            return
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._total)
        elif not self._drawn:
            seconds = time.perf_counter() - self._started
            console.say(f"{self._name:<10} {self._total:>6}  {seconds:6.1f} s  {self._figures}".rstrip())
        self._name = ""


def _make_progress() -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", style="dim"),
        console=console.messages(),
        redirect_stdout=False,  # standard output may be a pipe, and this console is standard error
    )
