"""Small image files of an archive, written from a seed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from energyad.data.demo import render_demo
from energyad.images.reading import read_image, write_png


def write_archive(folder: Path, *, different: int, count: int, side: int, seed: int) -> Path:
    """Write rendered parts with noise of their own, so that no two have the same score, and hard links to them.

    Args:
        folder: Where they go.
        different: Files that differ.
        count: Files in all; those beyond the different ones are hard links.
        side: Pixels of a side.
        seed: Of the parts and the noise.

    Returns:
        The folder.
    """
    folder.mkdir()
    dice = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as temporary:
        parts = render_demo(temporary, seed=seed, train=1, good=8, per_flaw=2, size=side).test
        pixels = [read_image(part.path) for part in parts]
    for number in range(count):
        place, first = folder / f"{number:08}.png", folder / f"{number % different:08}.png"
        if number >= different:
            os.link(first, place)
            continue
        base = pixels[number % len(pixels)]
        noisy = base + dice.normal(0, 4, base.shape)
        write_png(place, noisy.round().clip(0, 255).astype(np.uint8))
    return folder
