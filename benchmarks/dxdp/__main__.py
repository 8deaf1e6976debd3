"""`python -m benchmarks.dxdp PART`: adds the rows that results.jsonl lacks, then writes the tables into the page."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.dxdp import gaussians, health, latents, resources
from benchmarks.dxdp.tables import PLACE, tables
from benchmarks.provenance import append_row, read_rows, stamp

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.jsonl"
PARTS = ("gaussians", "latents", "resources", "health", "tables")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dxdp", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 8, 32, 128, 256], help="of the Gaussians")
    parser.add_argument("--methods", nargs="+", choices=gaussians.METHODS, default=gaussians.METHODS)
    parser.add_argument("--images", type=Path, help="folder of good images, whose latents are the data")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of child processes
    torch.set_num_threads(1)
    for row in rows(arguments, read_rows(RESULTS)):
        append_row(RESULTS, row | asdict(stamp(threads=1)))
        print(row, flush=True)
    PLACE.fill(FOLDER / "README.md", tables(read_rows(RESULTS)))


def rows(arguments: argparse.Namespace, found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """New rows of one part."""
    if arguments.part == "gaussians":
        for case in gaussians.cases(arguments.dims, arguments.seeds, arguments.methods):
            if not any(asdict(case).items() <= row.items() for row in found):
                yield gaussians.measure(case)
    elif arguments.part == "latents":
        yield from latents.rows(arguments.images, arguments.seeds)
    elif arguments.part == "resources":
        yield from resources.rows()
    elif arguments.part == "health":
        yield from health.rows(arguments.images)


if __name__ == "__main__":
    main()
