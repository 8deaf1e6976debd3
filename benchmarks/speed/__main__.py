"""`python -m benchmarks.speed --data-root DIR --category screw`: measure all parts, append rows, draw the figure."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.provenance import append_row, stamp
from benchmarks.speed import card, figure, parts, scaling, throughput
from benchmarks.speed.images import prepare
from benchmarks.speed.memory import in_a_process
from benchmarks.speed.peers import NOTES, fit_peer
from benchmarks.speed.table import RESULTS, tables
from energyad.data.datasets import Category, open_category
from energyad.data.demo import render_demo
from energyad.detector import AnomalyDetector
from energyad.settings import FitSettings

PACKAGES = ("energyad", "torch", "numpy", "onnxruntime", "timm", "anomalib", "opencv-python-headless")
PADIM_IMAGES = 110  # its covariances of 100 features want more


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of each part."""

    images: int = 32
    rounds: int = 9
    calls: int = 200
    few_good: int = PADIM_IMAGES
    peers: tuple[str, ...] = tuple(NOTES)
    for_peers: int = 16
    endless: int = 100_000
    sides: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    fits: tuple[int, ...] = (20, 80, 320)


QUICK = Plan(
    images=16,
    rounds=2,
    calls=20,
    peers=("patchcore-0.01", "padim"),
    for_peers=8,
    endless=3000,
    sides=(128, 512),
    fits=(8, 16),
)
PARTS = ("throughput", "memory", "flat", "image size", "training set")
CARD, BY_PART = "card", "parts"
"""Measured where they are asked for by name: the one that needs a graphics card, and where the time goes."""


@dataclass(frozen=True)
class Bench:
    """What all parts share."""

    model: Path
    int8_model: Path
    category: Category
    folder: Path
    plan: Plan
    threads: int

    @property
    def good(self) -> Path:
        """The folder of good images."""
        return self.category.train_good[0].parent


def throughput_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    if not bench.int8_model.exists():
        fit(bench.category, bench.int8_model, threads=bench.threads, precision="int8")
    detectors = throughput.engines(bench.model, bench.int8_model, threads=bench.threads)
    for detector in detectors.values():
        detector.prepare()  # its second of measuring belongs to no figure
    size, _ = detectors["onnxruntime"].image_size  # of square images
    good = bench.category.train_good
    peers = {
        name: fit_peer(name, good, image_size=size, few=bench.plan.few_good, threads=bench.threads)
        for name in bench.plan.peers
    }
    images = prepare(
        bench.category, bench.folder / "images", count=bench.plan.images, size=size, file_size=512
    )
    measured = throughput.measure(
        detectors,
        peers,
        images,
        rounds=bench.plan.rounds,
        calls=bench.plan.calls,
        few=bench.plan.for_peers,
    )
    plan = asdict(detectors["onnxruntime"].runtime.plan)
    for row in measured:
        note = NOTES.get(row["subject"])
        yield row | {"image_size": size, "file_size": 512, "plan": plan} | ({"note": note} if note else {})


def memory_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    images = bench.folder / "images"
    if not images.exists():
        prepare(bench.category, images, count=bench.plan.images, size=256, file_size=512)
    places = ("--model", str(bench.model), "--images", str(images), "--good", str(bench.good))
    numbers = ("--few", str(bench.plan.few_good), "--threads", str(bench.threads))
    for subject in ("energyad", *bench.plan.peers):
        found = in_a_process("score", "--subject", subject, *places, *numbers)
        yield {"part": "memory", "subject": subject} | found


def flat_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    """A small network on small images, so that a hundred thousand take minutes; what is kept for each is the same."""
    demo = render_demo(bench.folder / "small", train=12, good=8, per_flaw=2, size=64)
    settings = FitSettings().with_values(
        {"input.image_size": 64, "energy.pretrain_steps": 100, "dxmi.iterations": 0}
    )
    AnomalyDetector.fit(demo.train_good, settings=settings, threads=bench.threads).save(
        bench.folder / "small-model"
    )
    yield in_a_process(
        *("endless", "--model", str(bench.folder / "small-model"), "--images", str(demo.root / "test")),
        *("--count", str(bench.plan.endless), "--threads", str(bench.threads)),
    )


def image_size_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    detector, folder = AnomalyDetector.load(bench.model, threads=bench.threads), bench.folder / "sides"
    rows = scaling.by_image_size(detector, bench.category, folder, sides=bench.plan.sides, count=12)
    yield from scaling.image_size_memory(rows, bench.model, folder, threads=bench.threads)


def training_set_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    counts = [count for count in bench.plan.fits if count <= len(bench.category.train_good)]
    yield from scaling.by_training_set(bench.good, counts=counts, threads=bench.threads)


def card_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    images = prepare(bench.category, bench.folder / "for-card", count=64, size=256, file_size=512)
    yield from card.measure(
        bench.model, images, threads=bench.threads, rounds=bench.plan.rounds, calls=bench.plan.calls
    )


def by_part_rows(bench: Bench) -> Iterator[dict[str, Any]]:
    images = prepare(bench.category, bench.folder / "for-parts", count=parts.BATCH, size=256, file_size=512)
    yield from parts.measure(bench.model, images, rounds=bench.plan.rounds)


MEASURES: dict[str, Callable[[Bench], Iterator[dict[str, Any]]]] = dict(
    zip(
        (*PARTS, CARD, BY_PART),
        (
            throughput_rows,
            memory_rows,
            flat_rows,
            image_size_rows,
            training_set_rows,
            card_rows,
            by_part_rows,
        ),
        strict=True,
    )
)


def fit(category: Category, place: Path, *, threads: int, precision: str) -> None:
    """A model of the category, with otherwise default settings."""
    settings = FitSettings().with_values({"features.precision": precision})
    fitted = AnomalyDetector.fit(category.train_good, name=category.name, settings=settings, threads=threads)
    fitted.save(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--category", required=True)
    parser.add_argument(
        "--model", type=Path, help="a fitted model of the category; fitted first where absent"
    )
    parser.add_argument("--int8-model", type=Path, help="one fitted with --precision int8; likewise")
    parser.add_argument("--parts", nargs="+", choices=(*PARTS, CARD, BY_PART), default=PARTS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="a few minutes, figures for a glance")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    category = open_category(arguments.category, data_root=arguments.data_root)
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or Path(folder) / "model"
        if not model.exists():
            fit(category, model, threads=arguments.threads, precision="float32")
        int8_model = arguments.int8_model or Path(folder) / "int8-model"
        plan = QUICK if arguments.quick else Plan()
        bench = Bench(model, int8_model, category, Path(folder), plan, arguments.threads)
        rows = []
        for part in arguments.parts:
            for row in MEASURES[part](bench):
                stamped = {"category": category.name, "quick": arguments.quick} | row
                stamped |= asdict(stamp(threads=arguments.threads, packages=PACKAGES))
                append_row(arguments.results, stamped)
                rows.append(stamped)
    print(tables(rows))
    figure.draw(arguments.results, arguments.results.with_name("scaling.png"))


if __name__ == "__main__":
    main()
