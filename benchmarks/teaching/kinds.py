"""`python -m benchmarks.teaching.kinds`: how often regions get the right name, and those of kinds without one any."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks import provenance
from benchmarks.detection.data import open_anywhere
from benchmarks.teaching import protocol
from benchmarks.teaching.protocol import Bench
from energyad.feedback.evidence import Evidence
from energyad.feedback.kinds import fit_kinds
from energyad.scoring.kinds import KindClassifier
from energyad.scoring.prediction import predict
from energyad.scoring.regions import UNKNOWN, Region

RESULTS: Final = Path(__file__).with_name("kinds.jsonl")
PACKAGES: Final = (*provenance.PACKAGES, "scikit-learn", "onnxruntime")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and append a row for each category, seed and number of examples. Returns the exit status."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.teaching.kinds", description=__doc__)
    p.add_argument("--data-root", action="append", type=Path, help="folder of categories; several times")
    p.add_argument("--categories", nargs="+", metavar="NAME", required=True)
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the split")
    p.add_argument("--examples", nargs="+", type=int, default=[3, 5, 10], metavar="N", help="of each kind")
    p.add_argument("--image-size", type=int, default=256, metavar="PIXELS", help="a side")
    p.add_argument("--models", type=Path, default=Path("build/teaching"), help="fits, all of seed 0")
    p.add_argument("--rows", type=Path, default=RESULTS)
    options = p.parse_args(arguments)
    torch.set_num_threads(1)
    for name in options.categories:
        category = open_anywhere(name, options.data_root)
        folder = options.models / f"{name}-{options.image_size}-0"
        bench = protocol.open_bench(category, folder, image_size=options.image_size, seed=0, threads=1)
        found = _regions(bench)
        for seed in options.seeds:
            for examples in options.examples:
                row = {
                    "category": name,
                    "seed": seed,
                    "examples": examples,
                    **_figures(bench, found, seed, examples),
                }
                stamp = provenance.stamp(threads=1, packages=PACKAGES)
                provenance.append_row(options.rows, row | vars(stamp))
                print(row, flush=True)
    return 0


@torch.inference_mode()
def _regions(bench: Bench) -> dict[int, Region]:
    """Of each defective test image, the region with the highest peak that touches the defect."""
    found = {}
    head, calibration = bench.opened.head, bench.opened.manifest.calibration
    for place, (image, evidence) in enumerate(zip(bench.test, bench.evidence, strict=True)):
        if evidence is None:
            continue
        mask = bench.category.test[place].read_mask(image.shape)
        heatmap = head(image.features.float()).heatmap[0].numpy()
        for region in predict(heatmap, calibration, shape=image.shape).regions:
            x, y, width, height = region.box
            if mask[y : y + height, x : x + width].any():
                found[place] = region
                break
    return found


def _figures(bench: Bench, found: dict[int, Region], seed: int, examples: int) -> dict[str, Any]:
    """Named by examples of one half of the images, measured on the other; then with each kind hidden in turn."""
    halves = _halves(bench, seed)
    classifier = _fit(bench, halves, examples, hidden="")
    named = _named(bench, found, classifier, halves, list(halves))
    right = [said == kind for kind, said in named]
    answers = [said == kind for kind, said in named if said != UNKNOWN]
    false = []
    for hidden in halves:
        others = _fit(bench, halves, examples, hidden=hidden)
        false += [said != UNKNOWN for _, said in _named(bench, found, others, halves, [hidden])]
    return {
        "kinds": len(halves),
        "regions": len(named),
        "right": round(float(np.mean(right)), 4),
        "unknown": round(1 - len(answers) / len(named), 4),
        "right_of_named": round(float(np.mean(answers)), 4) if answers else None,
        "hidden_regions": len(false),
        "hidden_named": round(float(np.mean(false)), 4),
    }


def _halves(bench: Bench, seed: int) -> dict[str, tuple[list[int], list[int]]]:
    rng = np.random.default_rng(seed)
    halves = {}
    for kind in bench.category.defect_types:
        places = rng.permutation([place for place, name in enumerate(bench.kinds) if name == kind]).tolist()
        halves[kind] = places[: len(places) // 2], places[len(places) // 2 :]
    return halves


def _fit(
    bench: Bench, halves: dict[str, tuple[list[int], list[int]]], examples: int, *, hidden: str
) -> KindClassifier:
    shown: list[Evidence] = []
    for kind, (known, _) in halves.items():
        evidence = [bench.evidence[place] for place in known[:examples]] if kind != hidden else []
        shown += [one for one in evidence if one is not None]
    classifier = fit_kinds(shown, head=bench.opened.head, manifest=bench.opened.manifest)
    assert classifier is not None
    return classifier


def _named(
    bench: Bench,
    found: dict[int, Region],
    classifier: KindClassifier,
    halves: dict[str, tuple[list[int], list[int]]],
    kinds: Sequence[str],
) -> list[tuple[str, str]]:
    """The kind and the name of each region of the other half."""
    named = []
    spec = bench.opened.manifest.input
    for kind in kinds:
        for place in halves[kind][1]:
            if place in found:
                image = bench.test[place]
                (region,) = classifier.name_regions(
                    [found[place]],
                    image.features.float().numpy(),
                    shape=image.shape,
                    tiles=spec.tiles,
                    tile_size=spec.image_size,
                )
                named.append((kind, region.kind or ""))
    return named


if __name__ == "__main__":
    sys.exit(main())
