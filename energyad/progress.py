"""What a long computation tells whoever waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Receives stages and steps. Implementations draw a bar, log, or ignore."""

    def stage(self, name: str, total: int) -> None:
        """A new stage of `total` steps begins, and the one before it is done."""
        ...

    def advance(self, steps: int = 1, *, figures: Mapping[str, float] | None = None) -> None:
        """Steps were done; `figures` are running losses and the like."""
        ...


class NullProgress:
    """Says nothing."""

    def stage(self, name: str, total: int) -> None:
        """Ignore."""

    def advance(self, steps: int = 1, *, figures: Mapping[str, float] | None = None) -> None:
        """Ignore."""


class PrefixedProgress:
    """Says of each stage which category it is of."""

    def __init__(self, progress: Progress, category: str) -> None:
        self._progress = progress
        self._category = category

    def stage(self, name: str, total: int) -> None:
        """A new stage, of the category."""
        self._progress.stage(f"{name:<10} {self._category}", total)

    def advance(self, steps: int = 1, *, figures: Mapping[str, float] | None = None) -> None:
        """Steps were done."""
        self._progress.advance(steps, figures=figures)
