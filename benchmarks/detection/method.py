"""What a method of the comparison is: good images in, a scoring function out. All see the same pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from energyad.images import reading
from energyad.images.input_shape import find_input_shape
from energyad.runtimes import RawScores
from energyad.settings import FitSettings

BATCH_SIZE = 8


@dataclass(frozen=True)
class Fitted:
    """A fitted method. shape: height and width of what it scores. num_bytes: of the fit, the backbone left out."""

    score: Callable[[UInt8[np.ndarray, "b h w 3"]], RawScores]
    shape: tuple[int, int]
    num_bytes: int


class Method(Protocol):
    """A method with its settings, which are written beside its results."""

    @property
    def image_size(self) -> int:
        """Pixels a side of a square as large as what it scores."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """All that its figures depend on besides images and seed, ready for JSON."""
        ...

    def fit(self, good: Sequence[Path], *, seed: int, threads: int) -> Fitted:
        """Fit on images of good parts."""
        ...


def side_of(settings: FitSettings) -> int:
    """Pixels a side of a square as large as the network's input."""
    return round(math.sqrt(math.prod(settings.input.network_shape)))


def shapes_of(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Return height and width of each image."""
    shapes = []
    for path in paths:
        with Image.open(path) as image:
            shapes.append((image.height, image.width))
    return shapes


def input_shape(good: Sequence[Path], image_size: int) -> tuple[int, int]:
    """Height and width that every method is given images in: those that a fit of energyad chooses, without tiles."""
    found = find_input_shape(shapes_of(good), image_size, tile_overlap=FitSettings().input.tile_overlap)
    (height, width), (rows, columns) = found.image_size, found.tiles
    return height * rows, width * columns


def read_batches(paths: Sequence[Path], shape: tuple[int, int]) -> Iterator[UInt8[np.ndarray, "b h w 3"]]:
    """The pixels that every method is given: decoded and resized as energyad does. Raises ImageError."""
    for start in range(0, len(paths), BATCH_SIZE):
        batch = [reading.read_image(path) for path in paths[start : start + BATCH_SIZE]]
        yield np.stack([reading.resize(pixels, shape) for pixels in batch])
