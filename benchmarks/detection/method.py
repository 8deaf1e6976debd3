"""What a method of the comparison is: good images in, a scoring function out. All see the same pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from energyad.images import reading
from energyad.runtimes import RawScores

BATCH_SIZE = 8


@dataclass(frozen=True)
class Fitted:
    """A fitted method. num_bytes: of all that was fitted, the backbone left out."""

    score: Callable[[UInt8[np.ndarray, "b h w 3"]], RawScores]
    num_bytes: int


class Method(Protocol):
    """A method with its settings, which are written beside its results."""

    @property
    def image_size(self) -> int:
        """Pixels a side of what it scores."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """All that its figures depend on besides images and seed, ready for JSON."""
        ...

    def fit(self, good: Sequence[Path], *, seed: int, threads: int) -> Fitted:
        """Fit on images of good parts."""
        ...


def read_batches(paths: Sequence[Path], image_size: int) -> Iterator[UInt8[np.ndarray, "b h w 3"]]:
    """The pixels that every method is given: decoded and resized as energyad does. Raises ImageError."""
    for start in range(0, len(paths), BATCH_SIZE):
        batch = [reading.read_image(path) for path in paths[start : start + BATCH_SIZE]]
        yield np.stack([reading.resize(pixels, image_size) for pixels in batch])
