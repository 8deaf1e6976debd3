"""Images a second and latency: the bare backbone, energyad on each engine, the decoder, PatchCore and PaDiM."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from benchmarks.detection.method import Fitted
from benchmarks.speed.backbone import Run, backbones, stages_of
from benchmarks.speed.images import Images
from benchmarks.speed.timing import Latency, Rate, interleave, latencies
from energyad.detector import AnomalyDetector
from energyad.images.prefetch import batches, ordered_map, prefetch_map
from energyad.images.reading import as_rgb, resize

BATCHES = (1, 16)
ENGINES = ("onnxruntime", "openvino", "torch")
RIVAL, DEFAULT_RIVAL = "patchcore-0.01", "patchcore-0.1"
Work = Callable[[], int]


def engines(model: Path, int8_model: Path, *, threads: int) -> dict[str, AnomalyDetector]:
    """The model on every engine that is installed, and the quantised one on the engine that runs it."""
    installed = [name for name in ENGINES if name != "openvino" or importlib.util.find_spec(name) is not None]
    found = {name: AnomalyDetector.load(model, threads=threads, runtime=name) for name in installed}
    return found | {"onnxruntime, int8": AnomalyDetector.load(int8_model, threads=threads)}


def measure(
    detectors: Mapping[str, AnomalyDetector],
    peers: Mapping[str, Fitted],
    images: Images,
    *,
    rounds: int,
    calls: int,
    few: int,
) -> list[dict[str, Any]]:
    """A row for each subject, source and batch size. few: images that peers, which are slow, are given."""
    plan = detectors["onnxruntime"].runtime.plan
    bare = backbones(stages_of(detectors["onnxruntime"]), plan)
    work = bare_work(bare, images) | our_work(detectors, images) | peer_work(peers, images.first(few))
    work[("decoder", "files", 1)] = lambda: _count(ordered_map(as_rgb, images.files, workers=plan.allowed))
    rates = interleave({str(key): each for key, each in work.items()}, rounds=rounds)
    single = latencies(one_by_one(detectors, bare, peers, images), calls=calls)
    return rows({key: rates[str(key)] for key in work}, single)


def bare_work(bare: Mapping[str, Run], images: Images) -> dict[tuple[str, str, int], Work]:
    def work(run: Run, batch: int) -> Work:
        def all_images() -> int:
            for start in range(0, len(images), batch):
                run(images.pixels[start : start + batch])
            return len(images)

        return all_images

    return {
        (f"backbone ({name})", "arrays", batch): work(run, batch)
        for name, run in bare.items()
        for batch in BATCHES
    }


def our_work(detectors: Mapping[str, AnomalyDetector], images: Images) -> dict[tuple[str, str, int], Work]:
    """From arrays to predictions, a batch at a time; from files through the pipeline, as `energyad score` does."""

    def arrays(detector: AnomalyDetector, batch: int) -> Work:
        def all_images() -> int:
            return sum(len(detector.score_pixels(part)) for part in batches(images.pixels, batch))

        return all_images

    def files(detector: AnomalyDetector, batch: int) -> Work:
        if batch == 1:
            return lambda: sum(detector.score(path) is not None for path in images.files)
        return lambda: _count(detector.score_images(images.files))

    found: dict[tuple[str, str, int], Work] = {}
    for name, detector in detectors.items():
        for batch in BATCHES:
            found[f"energyad ({name})", "arrays", batch] = arrays(detector, batch)
            found[f"energyad ({name})", "files", batch] = files(detector, batch)
    return found


def peer_work(peers: Mapping[str, Fitted], images: Images) -> dict[tuple[str, str, int], Work]:
    """anomalib's, which use all of torch's threads; files are decoded ahead in threads as well."""
    size = images.pixels.shape[1]

    def arrays(fitted: Fitted, batch: int) -> Work:
        def all_images() -> int:
            for start in range(0, len(images), batch):
                fitted.score(images.pixels[start : start + batch])
            return len(images)

        return all_images

    def files(fitted: Fitted, batch: int) -> Work:
        def score(pixels: Any) -> Any:
            return list(fitted.score(np.stack([resize(each, size) for each in pixels])).score)

        return lambda: _count(prefetch_map(images.files, as_rgb, score, batch_size=batch, workers=2))

    return {
        (name, source, batch): work(fitted, batch)
        for name, fitted in peers.items()
        for batch in BATCHES
        for source, work in (("arrays", arrays), ("files", files))
    }


def one_by_one(
    detectors: Mapping[str, AnomalyDetector],
    bare: Mapping[str, Run],
    peers: Mapping[str, Fitted],
    images: Images,
) -> dict[str, Callable[[int], object]]:
    """Calls of one image, from arrays."""

    def one(index: int) -> UInt8[np.ndarray, "1 h w 3"]:
        at = index % len(images)
        return images.pixels[at : at + 1]

    def of(run: Callable[[Any], object]) -> Callable[[int], object]:
        return lambda index: run(one(index))

    found = {f"backbone ({name})": of(run) for name, run in bare.items()}
    found |= {f"energyad ({name})": of(each.score_pixels) for name, each in detectors.items()}
    return found | {name: of(fitted.score) for name, fitted in peers.items()}


def rows(rates: Mapping[tuple[str, str, int], Rate], single: Mapping[str, Latency]) -> list[dict[str, Any]]:
    """Ratios first.

    of_backbone: to the bare backbone on the same engine, called with the same batch. of_best_backbone: likewise, where
    the backbone's batches are cut as energyad cuts its own, which is faster. Both are in floats, for int8 as well.
    times_patchcore: to PatchCore with a hundredth of all patches; times_patchcore_default: with a tenth, anomalib's
    default. *_cpu: the same in processor time, which others' load leaves nearly alone.
    """
    found = []
    for (subject, source, batch), rate in rates.items():
        engine = next((name for name in ENGINES if name in subject), "onnxruntime")
        plain = rates.get((f"backbone ({engine}, one call)", "arrays", batch))
        best = rates.get((f"backbone ({engine}, energyad's plan)", "arrays", batch), plain)
        latency = single.get(subject) if source == "arrays" and batch == 1 else None
        found.append(
            {
                "part": "throughput",
                "subject": subject,
                "source": source,
                "batch": batch,
                "of_backbone": share(rate, plain),
                "of_backbone_cpu": share_of_cpu(rate, plain),
                "of_best_backbone_cpu": share_of_cpu(rate, best),
                "times_patchcore": share(rate, rates.get((RIVAL, source, batch))),
                "times_patchcore_cpu": share_of_cpu(rate, rates.get((RIVAL, source, batch))),
                "times_patchcore_default": share(rate, rates.get((DEFAULT_RIVAL, source, batch))),
                **asdict(rate),
                **(asdict(latency) if latency is not None else {}),
            }
        )
    return found


def share(rate: Rate, other: Rate | None) -> float | None:
    """How many images a second for each of the other's."""
    return None if other is None else round(rate.images_per_second / other.images_per_second, 3)


def share_of_cpu(rate: Rate, other: Rate | None) -> float | None:
    """The same in processor time."""
    return None if other is None else round(other.cpu_ms / rate.cpu_ms, 3)


def _count(items: Any) -> int:
    return sum(1 for _ in items)
