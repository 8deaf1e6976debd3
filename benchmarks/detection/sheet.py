"""`python -m benchmarks.detection.sheet`: images, masks and the methods' heatmaps side by side.

Heatmaps are kept while rows are measured, in a folder `cache` beside the results that git ignores. Pictures of data
sets that may not be passed on stay there too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float16, UInt8

from benchmarks.command import command
from benchmarks.detection import rows, standing
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.rows import Row
from energyad.data.datasets import Category, TestItem
from energyad.errors import DataError
from energyad.images import reading
from energyad.images.masks import read_mask

TILE = 160
HEATMAP_SIZE = 128
PER_TYPE = 2
MARGIN = 6
HEADING = 22


@dataclass(frozen=True)
class Kept:
    """Heatmaps of a few test images, of one method and seed."""

    method: str
    names: tuple[str, ...]
    heatmaps: Float16[np.ndarray, "n h w"]


def cache_of(results: Path) -> Path:
    """Where the heatmaps of these results are kept."""
    return results.parent / "cache"


def picked(category: Category) -> list[tuple[int, TestItem]]:
    """Two images of each defect, evenly spaced, and two good ones: the same for every method."""
    chosen = []
    for kind in (*category.defect_types, "good"):
        items = [(place, item) for place, item in enumerate(category.test) if item.defect_type == kind]
        step = max(1, len(items) // PER_TYPE)
        chosen += items[step // 2 :: step][:PER_TYPE]
    return chosen


def name_of(item: TestItem) -> str:
    """A test image's name within its category."""
    return f"{item.defect_type}/{item.path.name}"


def keep(folder: Path, row: Row, category: Category, heatmaps: Float[np.ndarray, "n h w"]) -> None:
    """Save a method's heatmaps of the images picked for the sheet."""
    chosen = picked(category)
    small = [reading.resize_map(heatmaps[place], HEATMAP_SIZE, HEATMAP_SIZE) for place, _ in chosen]
    target = folder / category.name / f"{row.method}-seed{row.seed}.npz"
    target.parent.mkdir(parents=True, exist_ok=True)
    names = np.array([name_of(item) for _, item in chosen])
    np.savez_compressed(target, names=names, heatmaps=np.stack(small).astype(np.float16))


def load(folder: Path, category: str, method: str, seed: int) -> Kept:
    """A method's kept heatmaps. Raises DataError where there are none."""
    path = folder / category / f"{method}-seed{seed}.npz"
    if not path.is_file():
        raise DataError(f"{path}: no heatmaps of {method} kept; run `python -m benchmarks.detection --again`")
    with np.load(path, allow_pickle=False) as arrays:
        return Kept(method, tuple(arrays["names"].tolist()), arrays["heatmaps"])


def draw(category: Category, kept: Sequence[Kept]) -> UInt8[np.ndarray, "h w 3"]:
    """One line an image: image, mask, then a heatmap of each method, all of a method on one scale."""
    scales = [np.quantile(k.heatmaps.astype(np.float32), [0.02, 0.998]) for k in kept]
    lines = [_headings(["image", "mask", *(k.method for k in kept)])]
    for _, item in picked(category):
        pixels = reading.read_image(item.path)
        tiles = [reading.resize(pixels, TILE), _mask_tile(item)]
        for k, (low, high) in zip(kept, scales, strict=True):
            heatmap = k.heatmaps[k.names.index(name_of(item))].astype(np.float32)
            tiles.append(_heat_tile((heatmap - low) / max(high - low, 1e-6)))
        lines.append(_beside(tiles))
    return np.concatenate(lines)


def _mask_tile(item: TestItem) -> UInt8[np.ndarray, "h w 3"]:
    if item.mask is None:
        return np.zeros((TILE, TILE, 3), np.uint8)
    mask = np.repeat(read_mask(item.mask)[:, :, None], 3, axis=2)
    return reading.resize(mask.astype(np.uint8) * 255, TILE)


def _heat_tile(level: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    grey = np.rint(255 * np.clip(reading.resize_map(level, TILE, TILE), 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(grey, cv2.COLORMAP_INFERNO)[:, :, ::-1])


def _beside(tiles: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h2 w2 3"]:
    frame = ((0, MARGIN), (0, MARGIN), (0, 0))
    return np.concatenate([np.pad(tile, frame, constant_values=255) for tile in tiles], axis=1)


def _headings(names: Sequence[str]) -> UInt8[np.ndarray, "h w 3"]:
    line = np.full((HEADING, (TILE + MARGIN) * len(names), 3), 255, np.uint8)
    for place, name in enumerate(names):
        corner = (place * (TILE + MARGIN) + 2, HEADING - 7)
        cv2.putText(line, name, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    return line


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.detection.sheet", description=__doc__)
    p.add_argument("--data-root", action="append", type=Path)
    p.add_argument("--category", required=True)
    p.add_argument("--methods", nargs="+", help="default: all that have rows of today")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--results", type=Path, default=rows.RESULTS)
    p.add_argument("--output", type=Path, help="default: cache/<category>.png beside the results")
    return p


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw one category's sheet."""
    options = parser().parse_args(arguments)
    folder = cache_of(options.results)
    measured = [row for row in standing.read(options.results) if row.seed == options.seed]
    whole = [row for row in measured if row.shots is None and not row.unified]
    methods = options.methods or [row.method for row in whole if row.category == options.category]
    kept = [load(folder, options.category, method, options.seed) for method in methods]
    picture = draw(open_anywhere(options.category, options.data_root), kept)
    print(reading.write_png(options.output or folder / f"{options.category}.png", picture))


if __name__ == "__main__":
    sys.exit(main())
