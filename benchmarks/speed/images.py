"""The images that all subjects are given: real test images, as arrays at the model's size and as PNG files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from energyad.datasets import Category
from energyad.images import read_image, resize, write_png


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
    large = [resize(read_image(path), file_size) for path in sources]
    files = tuple(write_png(folder / f"{index:04}.png", pixels) for index, pixels in enumerate(large))
    return Images(np.stack([resize(pixels, size) for pixels in large]), files, file_size)
