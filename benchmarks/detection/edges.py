"""`python -m benchmarks.detection.edges`: how well synthetic defects at the image's edge are found, beside others.

The same defects are drawn on good test images twice: once with their middle within some pixels of the edge, once well
inside. Both are ranked against the same images as they are. Synthetic defects are stand-ins for real ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from benchmarks import provenance
from benchmarks.command import command
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.fitted import fit_of, parser_of_models
from benchmarks.detection.quality import tally_pixels
from energyad.data.datasets import Category
from energyad.data.defects import draw_defect, drawing_size
from energyad.detector import AnomalyDetector
from energyad.evaluation import metrics
from energyad.images import reading
from energyad.runtimes import RawScores

RESULTS: Final = Path(__file__).with_name("edges.jsonl")
EDGE: Final = 8
"""Pixels of the network's input from the edge to the middle of a defect at the most."""
INSIDE: Final = 32
"""Pixels from the edge at the least, of the others."""
NUM_DEFECTIVE: Final = 60
BATCH_SIZE: Final = 8

Where: TypeAlias = Literal["edge", "inside"]


class Drawn(NamedTuple):
    """Images at the network's size, and the masks of their defects."""

    pixels: list[UInt8[np.ndarray, "h w 3"]]
    masks: list[Bool[np.ndarray, "h w"]]


def allowed(shape: tuple[int, int], network: tuple[int, int], where: Where) -> Bool[np.ndarray, "h w"]:
    """Return where the middle of a defect may lie.

    Args:
        shape: Height and width of the image that it is drawn on.
        network: Height and width of the network's input.
        where: At the edge, or inside.
    """
    limit = EDGE if where == "edge" else INSIDE
    inner = np.zeros(shape, dtype=bool)
    rows, columns = (round(limit * side / least) for side, least in zip(shape, network, strict=True))
    inner[rows : shape[0] - rows, columns : shape[1] - columns] = True
    return ~inner if where == "edge" else inner


def draw(category: Category, network: tuple[int, int], where: Where, *, seed: int) -> Drawn:
    """Draw one defect on each good test image, several times; the same kinds and sizes wherever they lie."""
    good = [reading.read_image(item.path) for item in category.test if not item.is_defective]
    drawn = Drawn([], [])
    for number in range(max(NUM_DEFECTIVE, len(good))):
        image, source = good[number % len(good)], good[(number + 1) % len(good)]
        large = reading.resize(image, drawing_size(image.shape[:2], network))
        defect = draw_defect(
            large,
            rng=np.random.default_rng((seed, number)),
            source=source,
            within=allowed(large.shape[:2], network, where),
        )
        drawn.pixels.append(reading.resize(defect.image, network))
        drawn.masks.append(reading.resize_map(defect.mask.astype(np.float32), *network) >= 0.5)
    return drawn


def score(detector: AnomalyDetector, pixels: Sequence[UInt8[np.ndarray, "h w 3"]]) -> RawScores:
    """Score images at the network's size."""

    def scored() -> Iterator[tuple[Float32[np.ndarray, " b"], Float32[np.ndarray, "b h w"]]]:
        for start in range(0, len(pixels), BATCH_SIZE):
            raw = detector.runtime.run(np.stack(pixels[start : start + BATCH_SIZE]))
            yield raw.score, raw.heatmap

    scores, heatmaps = zip(*scored(), strict=True)
    return RawScores(np.concatenate(scores), np.concatenate(heatmaps))


def measure_edges(category: Category, detector: AnomalyDetector, *, seed: int) -> dict[str, dict[str, float]]:
    """Return image AUROC and AUPRO of defects at the edge and inside, each against the images as they are."""
    network = detector.input_shape
    paths = [item.path for item in category.test if not item.is_defective]
    good = score(detector, [reading.resize(reading.read_image(path), network) for path in paths])
    nothing = np.zeros((len(paths), *network), dtype=bool)
    places: tuple[Where, ...] = ("edge", "inside")
    figures: dict[str, dict[str, float]] = {}
    for where in places:
        drawn = draw(category, network, where, seed=seed)
        defective = score(detector, drawn.pixels)
        labels = [False] * len(paths) + [True] * len(drawn.pixels)
        auroc = metrics.image_auroc(labels, np.concatenate([good.score, defective.score]).tolist())
        tally = tally_pixels(np.concatenate([good.heatmap, defective.heatmap]), [*nothing, *drawn.masks])
        overlap = metrics.aupro([tally])
        figures[where] = {"image_auroc": round(auroc or 0.0, 5), "aupro": round(overlap or 0.0, 5)}
    return figures


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Append a row for either place of each model."""
    parser = parser_of_models("edges", __doc__, results=RESULTS)
    parser.add_argument("--seed", type=int, default=0, help="of the defects")
    options = parser.parse_args(arguments)
    for name in options.categories:
        category = open_anywhere(name, options.data_root)
        detector = AnomalyDetector.load(options.models / name, threads=options.threads)
        fit_seed, fitted_with = fit_of(detector)
        for where, figures in measure_edges(category, detector, seed=options.seed).items():
            row = {
                "where": where,
                "category": name,
                "seed": options.seed,
                "fit_seed": fit_seed,
                "settings_hash": fitted_with,
                **figures,
                **vars(provenance.stamp(threads=options.threads)),
            }
            provenance.append_row(options.results, row)
            print(f"{name}, {where}: {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
