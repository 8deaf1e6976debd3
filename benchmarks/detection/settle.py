"""`python -m benchmarks.detection.settle`: when does training settle?

Detection over DxMI iterations on good images held out of train/good, as they are and with a synthetic defect planted.
No test image is read, so the default length may be chosen by it. A ranking of lengths, no estimate of performance. The
kinds of defects that judge are kept from the discriminator, which learns from the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, UInt8
from torch import Tensor

from benchmarks import provenance
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.judge import tally_pixels
from benchmarks.detection.rows import settings_hash
from benchmarks.detection.same_features import FeatureRule
from benchmarks.detection.settle_plot import draw
from energyad import images, metrics
from energyad.copies import relit_features
from energyad.datasets import Category
from energyad.defect_kinds import KINDS
from energyad.defects import plant_defect
from energyad.errors import DataError, EnergyadError
from energyad.experts import Expert
from energyad.extraction import GoodFeatures, extract
from energyad.heads import GoodPatches, fit_expert, gather_patches
from energyad.planted import planted_patches
from energyad.progress import Silent
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scorer import EnergyHead
from energyad.settings import FitSettings

RESULTS = Path(__file__).with_name("settle.jsonl")
HELD_OUT = 0.3
MOST_HELD_OUT = 60
WATCHED_SHARE = 10  # one in so many fitted images only tells training when to stop
JUDGING = 4  # kinds of defects
PLANTED = 3  # defects on each held-out image, one a copy
BATCH_SIZE = 8


Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Probe:
    """Held-out images, first as they are and then with defects."""

    features: Float[Tensor, "n c g g"]
    defective: Bool[np.ndarray, " n"]
    masks: Bool[np.ndarray, "n h w"]


def settle(category: Category, settings: FitSettings, *, every: int, threads: int, report: Report) -> None:
    """Train once, as a fit does; `report` gets a row before DxMI and after every so many iterations."""
    grid, graph = FeatureRule("mahalanobis", settings).backbone()
    session = OnnxFeatures(graph, threads=threads)
    fitted, held_out = split(category.train_good, settings.seed)
    watched, taught = fitted[::WATCHED_SHARE], [p for i, p in enumerate(fitted) if i % WATCHED_SHARE]
    kinds = np.random.default_rng(settings.seed).permutation(sorted(KINDS)).tolist()
    judging, teaching = kinds[:JUDGING], kinds[JUDGING:]
    probe = plant(session, held_out, judging, settings)
    generator = torch.Generator().manual_seed(settings.seed)
    spent, resumed = 0.0, time.process_time()

    def look(iteration: int, expert: Expert) -> None:
        nonlocal spent, resumed
        spent += time.process_time() - resumed
        if iteration % every == 0 or iteration == settings.iterations:
            head = EnergyHead(expert, grid=grid, smoothing=settings.smoothing)
            report({"iteration": iteration, "cpu_seconds": round(spent, 1)} | detect(probe, head))
        resumed = time.process_time()

    def patches(good: GoodFeatures) -> Float16[Tensor, "n p c"]:
        return gather_patches(good.features, range(len(good.kept)), generator=generator)

    silent = Silent()
    own, seen = (
        extract(paths, session, settings=settings, skip_bad=False, progress=silent)
        for paths in (taught, watched)
    )
    relit = relit_features(taught, session, settings=settings, progress=silent)
    planted = planted_patches(taught, session, grid=grid, settings=settings, progress=silent, kinds=teaching)
    parts = GoodPatches(own=patches(own), relit=patches(relit), held_out=patches(seen), planted=planted)
    fit_expert(parts, settings, generator, silent, observe=look)


def split(good: Sequence[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Images to fit on and images held out. Raises DataError for too few."""
    if len(good) < 4:
        raise DataError(f"{len(good)} good image(s): at least 4 are needed to hold some out")
    order = np.random.default_rng(seed).permutation(len(good))
    count = min(MOST_HELD_OUT, max(2, round(HELD_OUT * len(good))))
    return [good[i] for i in sorted(order[count:])], [good[i] for i in sorted(order[:count])]


def plant(session: OnnxFeatures, paths: Sequence[Path], kinds: Sequence[str], settings: FitSettings) -> Probe:
    """Every held-out image as it is, and PLANTED times with one defect of these kinds, textured by another image."""
    rng = np.random.default_rng(settings.seed)
    good = [images.read_image(path) for path in paths]
    planted = [
        plant_defect(image, rng=rng, source=good[(place + 1) % len(good)], kind=str(rng.choice(kinds)))
        for place, image in enumerate(good)
        for _ in range(PLANTED)
    ]
    pixels = [images.resize(image, settings.image_size) for image in [*good, *(p.image for p in planted)]]
    masks = np.zeros((len(pixels), settings.image_size, settings.image_size), dtype=bool)
    for place, defect in enumerate(planted, start=len(good)):
        masks[place] = images.resize_map(defect.mask.astype(np.float32), *masks.shape[1:]) >= 0.5
    defective = np.arange(len(pixels)) >= len(good)
    return Probe(run_backbone(session, pixels), defective, masks)


def run_backbone(
    session: OnnxFeatures, pixels: Sequence[UInt8[np.ndarray, "h w 3"]]
) -> Float[Tensor, "n c g g"]:
    """Features of resized images."""
    starts = range(0, len(pixels), BATCH_SIZE)
    return torch.from_numpy(
        np.concatenate([session.run(np.stack(pixels[start : start + BATCH_SIZE])) for start in starts])
    )


@torch.no_grad()
def detect(probe: Probe, head: EnergyHead) -> dict[str, float]:
    """Image and pixel AUROC of a head."""
    found = [head(features) for features in probe.features.split(BATCH_SIZE)]
    scores = torch.cat([scores.score for scores in found]).numpy()
    heatmaps = torch.cat([scores.heatmap for scores in found]).numpy()
    figures = {
        "image_auroc": metrics.image_auroc(probe.defective.tolist(), scores.tolist()),
        "pixel_auroc": metrics.pixel_auroc([tally_pixels(heatmaps, probe.masks)]),
    }
    return {name: round(figure, 5) for name, figure in figures.items() if figure is not None}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.detection.settle", description=__doc__)
    p.add_argument("--data-root", action="append", type=Path)
    p.add_argument("--categories", nargs="+", default=[], metavar="NAME")
    p.add_argument("--seeds", nargs="+", type=int, default=[0])
    p.add_argument("--iterations", type=int, default=2 * FitSettings().iterations)
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
                run_one(category, replace(FitSettings(), seed=seed, iterations=options.iterations), options)
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
    plain = {name: value for name, value in settings.to_dict().items() if name not in ("seed", "iterations")}
    what = {"category": category.name, "seed": settings.seed, "settings_hash": settings_hash(plain)}

    def report(figures: dict[str, Any]) -> None:
        provenance.append_row(options.results, what | figures | stamp)
        auroc = f"image {figures['image_auroc']:.4f}, pixel {figures['pixel_auroc']:.4f}"
        print(f"{category.name}, seed {settings.seed}, iteration {figures['iteration']}: {auroc}", flush=True)

    settle(category, settings, every=options.every, threads=options.threads, report=report)


if __name__ == "__main__":
    sys.exit(main())
