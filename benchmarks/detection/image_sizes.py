"""`python -m benchmarks.detection.image_sizes`: the image size that `auto` chooses for each category, one row each."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import provenance
from benchmarks.command import command
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.method import shapes_of
from energyad.images.input_shape import AUTO_SIDES, STEP, find_input_shape
from energyad.settings import FitSettings

RESULTS: Final = Path(__file__).with_name("image_sizes.jsonl")


def chosen_side(image_shapes: Sequence[tuple[int, int]]) -> int:
    """Return the side that gives images of these shapes the input that `auto` gives them."""
    overlap = FitSettings().input.tile_overlap
    chosen = find_input_shape(image_shapes, "auto", tile_overlap=overlap)
    smallest, largest = AUTO_SIDES
    sides = range(smallest, largest + 1, STEP)
    return next(
        side for side in sides if find_input_shape(image_shapes, side, tile_overlap=overlap) == chosen
    )


def read(path: Path = RESULTS) -> dict[str, int]:
    """Return the side of each category, of several rows the newest."""
    return {row["category"]: row["side"] for row in provenance.read_rows(path)}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Append a row for each category."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection.image_sizes", description=__doc__)
    parser.add_argument("--data-root", action="append", type=Path)
    parser.add_argument("--categories", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    for name in options.categories:
        shapes = shapes_of(open_anywhere(name, options.data_root).train_good)
        row = {
            "category": name,
            "median_height": statistics.median(height for height, _ in shapes),
            "median_width": statistics.median(width for _, width in shapes),
            "side": chosen_side(shapes),
            **vars(provenance.stamp(threads=1)),
        }
        provenance.append_row(options.results, row)
        print(f"{name}: {row['side']} pixels a side", flush=True)


if __name__ == "__main__":
    sys.exit(main())
