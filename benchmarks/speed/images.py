"""The images that all subjects are given: real test images, as arrays at the model's size and as PNG files.

Grey images stay grey in their files, as a monochrome camera writes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from energyad.data.datasets import Category
from energyad.images.reading import as_rgb, resize, write_png


@dataclass(frozen=True)
class Images:
    """pixels: at the network's size. files: the same images at `file_size` pixels a side."""

    pixels: UInt8[np.ndarray, "n size size 3"]
    files: tuple[Path, ...]
    file_size: int

    def __len__(self) -> int:
        return len(self.files)

    def first(self, count: int) -> Images:
        """Fewer of them."""
        return Images(self.pixels[:count], self.files[:count], self.file_size)


def prepare(category: Category, folder: Path, *, count: int, size: int, file_size: int) -> Images:
    """Resize the first test images; a category with fewer gives some twice."""
    sources = list(islice(cycle(item.path for item in category.test), count))
    folder.mkdir(parents=True, exist_ok=True)
    large = [resize(as_rgb(path), file_size) for path in sources]
    files = tuple(write_channels(folder / f"{index:04}.png", pixels) for index, pixels in enumerate(large))
    return Images(np.stack([resize(pixels, size) for pixels in large]), files, file_size)


def write_channels(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> Path:
    """Write a PNG file of one channel where all three are the same, else of three."""
    grey = bool((pixels == pixels[:, :, :1]).all())
    return write_png(path, pixels[:, :, 0] if grey else pixels)
