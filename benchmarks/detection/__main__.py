"""`python -m benchmarks.detection`: compare methods on the same images, one row each, appended to the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.detection import rows, scores, sheet
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.measure import Cell, Scored, measure
from benchmarks.detection.method import side_of
from benchmarks.detection.methods import open_method
from benchmarks.detection.ours import SHARED, Energyad
from benchmarks.detection.rows import Row
from energyad.data.datasets import unite
from energyad.errors import EnergyadError, SettingsError
from energyad.extras import require
from energyad.settings import FitSettings

METHODS = (
    "energyad",
    "energyad-tau0",
    "energyad-init",
    "knn",
    "knn-whitened",
    "mahalanobis",
    "padim",
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__)
    p.add_argument(
        "--data-root", action="append", type=Path, help="folder of categories; may be given several times"
    )
    p.add_argument("--categories", nargs="+", required=True, metavar="NAME")
    p.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--image-size", type=int, default=side_of(FitSettings()))
    p.add_argument("--few-shot", nargs="+", type=int, metavar="N", help="fit on so many good images each")
    p.add_argument("--unified", action="store_true", help="one model for all the categories; energyad only")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--results", type=Path, default=rows.RESULTS)
    p.add_argument("--engine", choices=("local", "ray"), default="local", help="ray: cells side by side")
    p.add_argument("--address", help="Ray's cluster; default this machine alone")
    p.add_argument("--again", action="store_true", help="measure also what has a row of the same settings")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every cell that has no row yet. Returns the exit status."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        done = set() if options.again else {row.key for row in rows.read(options.results)}
        open_cells = []
        for cell in cells(options):
            if is_done(cell, done):
                print(f"{describe(cell)}: has its row")
            else:
                open_cells.append(cell)
        if options.engine == "ray":
            return measure_on_ray(open_cells, options)
        for cell in open_cells:
            print(f"{describe(cell)} ...", flush=True)
            add(options.results, measure(cell, threads=options.threads))
    except EnergyadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def add(results: Path, measured: Sequence[tuple[Row, Scored]]) -> None:
    """Append the rows of a cell."""
    for row, scored in measured:
        rows.append(results, row)
        keep(results, row, scored)
        print(figures(row), flush=True)


def measure_on_ray(open_cells: Sequence[Cell], options: argparse.Namespace) -> int:
    """Measure cells on a Ray cluster; returns the exit status, 2 where a cell failed."""
    require("ray", "--engine ray")
    from benchmarks.detection.side_by_side import measure_cells

    status = 0
    for cell, measured in measure_cells(open_cells, threads=options.threads, address=options.address):
        if isinstance(measured, str):
            print(f"error: {describe(cell)}: {measured}", file=sys.stderr, flush=True)
            status = 2
            continue
        print(describe(cell), flush=True)
        add(options.results, measured)
    return status


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """What to measure, a category at a time and the methods of one seed after one another."""
    opened = [open_anywhere(name, options.data_root) for name in options.categories]
    methods = {name: open_method(name, image_size=options.image_size) for name in options.methods}
    if options.unified and any(not name.startswith("energyad") for name in methods):
        raise SettingsError("--unified is for energyad alone: give --methods energyad")
    if options.unified and options.few_shot:
        raise SettingsError("--unified and --few-shot have no table together: give one of them")
    groups = [tuple(opened)] if options.unified else [(category,) for category in opened]
    for group in groups:
        for seed in options.seeds:
            for shots in options.few_shot or [None]:
                for name, method in methods.items():
                    own = method
                    if options.unified and isinstance(method, Energyad) and not name.endswith(SHARED):
                        own = replace(method, categories=unite(group, name="unified").united)
                    yield Cell(name=name, method=own, categories=group, shots=shots, seed=seed)


def is_done(cell: Cell, done: set[rows.Key]) -> bool:
    """Whether every category of the cell has its row."""
    names = tuple(category.name for category in cell.categories)
    keys = {
        rows.cell_key(cell.name, name, names, cell.shots, cell.seed, cell.settings_hash) for name in names
    }
    return keys <= done


def keep(results: Path, row: Row, scored: Scored) -> None:
    """Scores for comparing methods image by image, heatmaps for the picture sheet; of whole runs only."""
    if row.shots is None and not row.unified:
        defective = [item.is_defective for item in scored.category.test]
        scores.append(scores.beside(results), row, defective=defective, scores=scored.scores)
        sheet.keep(sheet.cache_of(results), row, scored.category, scored.heatmaps)


def describe(cell: Cell) -> str:
    """One line for whoever waits."""
    shots = "" if cell.shots is None else f", {cell.shots} good images"
    return f"{'+'.join(c.name for c in cell.categories)}, {cell.name}, seed {cell.seed}{shots}"


def figures(row: Row) -> str:
    """A finished row in one line."""
    pixel = "" if row.pixel_auroc is None else f", pixel {row.pixel_auroc:.4f}, AUPRO {row.aupro:.4f}"
    cost = f"fit {row.fit_seconds:.0f} s, {row.image_ms:.0f} ms an image, {row.model_bytes / 1e6:.2f} MB"
    return f"  {row.category}: image {row.image_auroc:.4f}{pixel}, F1 {row.best_f1:.4f}; {cost}"


if __name__ == "__main__":
    sys.exit(main())
