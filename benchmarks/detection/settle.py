"""`python -m benchmarks.detection.settle`: when does training settle?

Detection over DxMI iterations on synthetic defects. No test image is read, so the default length may be chosen by it.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import provenance
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.rows import settings_hash
from benchmarks.detection.settle_plot import draw
from benchmarks.detection.synthetic_validation import hold_out, measure_detection
from energyad.data.datasets import Category
from energyad.energy.patch_energy import PatchEnergy, combine_scales
from energyad.errors import EnergyadError
from energyad.fitting.energies import fit_multiscale_energy, for_scale
from energyad.scoring.scorer import EnergyHead
from energyad.settings import FitSettings

RESULTS = Path(__file__).with_name("settle.jsonl")

Report = Callable[[dict[str, Any]], None]


def settle(category: Category, settings: FitSettings, *, every: int, threads: int, report: Report) -> None:
    """Train once, as a fit does; `report` gets a row before DxMI and after every so many iterations.

    They are the finest scale's; another's count as many as its patches are fewer.
    """
    validation = hold_out(category, settings, threads=threads)
    context = validation.context
    snapshots: dict[int, dict[int, tuple[PatchEnergy, float]]] = {}
    spent, resumed = 0.0, time.process_time()

    def take_snapshot(scale_number: int, iteration: int, energy: PatchEnergy) -> None:
        nonlocal spent, resumed
        spent += time.process_time() - resumed
        if scale_number not in snapshots:
            snapshots[scale_number], spent = {}, 0.0
        scale = context.scales[scale_number]
        at = min(iteration * scale.factor**2, settings.dxmi.iterations)
        if at % every == 0 or iteration == for_scale(settings, scale).dxmi.iterations:
            snapshots[scale_number][at] = copy.deepcopy(energy), spent
        resumed = time.process_time()

    fit_multiscale_energy(validation.patches, context, context.generator(), take_snapshot)
    for iteration in sorted(set().union(*snapshots.values())):
        # A scale that stopped before stays as it was.
        latest = [taken[max(at for at in taken if at <= iteration)] for taken in snapshots.values()]
        energies = [energy for energy, _ in latest]
        head = EnergyHead(
            combine_scales(energies, context.scales, context.grid, settings.energy.coarse_weight),
            grid=context.grid,
            smoothing=settings.heatmap.smoothing,
            contrast=settings.heatmap.contrast,
        )
        seconds = round(sum(cost for _, cost in latest), 1)
        report({"iteration": iteration, "cpu_seconds": seconds} | measure_detection(validation.images, head))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.detection.settle", description=__doc__)
    p.add_argument("--data-root", action="append", type=Path)
    p.add_argument("--categories", nargs="+", default=[], metavar="NAME")
    p.add_argument("--seeds", nargs="+", type=int, default=[0])
    p.add_argument("--iterations", type=int, default=2 * FitSettings().dxmi.iterations)
    p.add_argument("--every", type=int, default=100)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--results", type=Path, default=RESULTS)
    p.add_argument("--figure", type=Path, help="default: beside the results, .png")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write rows, then draw all rows there are; without categories, draw alone."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        for name in options.categories:
            category = open_anywhere(name, options.data_root)
            for seed in options.seeds:
                run_one(
                    category,
                    FitSettings().with_values({"seed": seed, "dxmi.iterations": options.iterations}),
                    options,
                )
        figure = options.figure or options.results.with_suffix(".png")
        draw(provenance.read_rows(options.results), figure)
        print(figure)
    except EnergyadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run_one(category: Category, settings: FitSettings, options: argparse.Namespace) -> None:
    """One training's rows."""
    stamp = vars(provenance.stamp(threads=options.threads))
    longer = {"seed", "dxmi.iterations"}  # the game of fewer iterations is the beginning of this one
    plain = {name: value for name, value in settings.values().items() if name not in longer}
    what = {"category": category.name, "seed": settings.seed, "settings_hash": settings_hash(plain)}

    def report(figures: dict[str, Any]) -> None:
        provenance.append_row(options.results, what | figures | stamp)
        auroc = f"image {figures['image_auroc']:.4f}, pixel {figures['pixel_auroc']:.4f}"
        print(f"{category.name}, seed {settings.seed}, iteration {figures['iteration']}: {auroc}", flush=True)

    settle(category, settings, every=options.every, threads=options.threads, report=report)


if __name__ == "__main__":
    sys.exit(main())
