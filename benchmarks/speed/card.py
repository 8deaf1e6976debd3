"""energyad on a graphics card: how fast, of what the bare backbone reaches there, and how far from the processor's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from benchmarks.speed.backbone import Stages, stages_of
from benchmarks.speed.images import Images
from benchmarks.speed.throughput import bare_work, one_by_one, our_work, share
from benchmarks.speed.timing import interleave, latencies
from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.scoring.prediction import Prediction

BACKBONE, SUBJECT = "backbone (torch, card)", "energyad (torch, card)"


def measure(model: Path, images: Images, *, threads: int, rounds: int, calls: int) -> list[dict[str, Any]]:
    """A row for each subject, source and batch size; energyad's say how far its predictions are from ONNX Runtime's.

    Raises DataError on a machine where PyTorch sees no card.
    """
    if not torch.cuda.is_available():
        raise DataError(
            "part card: PyTorch sees no CUDA device here; leave the part out, or run it where there is one"
        )
    detector = AnomalyDetector.load(model, threads=threads, runtime="torch")
    processor = AnomalyDetector.load(model, threads=threads, runtime="onnxruntime")
    bare = on_card(stages_of(detector))
    ours, others = {"torch, card": detector}, {"torch, card": bare}
    work = bare_work(others, images) | our_work(ours, images)
    rates = interleave({str(key): each for key, each in work.items()}, rounds=rounds)
    single = latencies(one_by_one(ours, others, {}, images), calls=calls)
    apart = differences(
        detector.score_pixels(list(images.pixels)), processor.score_pixels(list(images.pixels))
    )
    found = []
    for (subject, source, batch), rate in ((key, rates[str(key)]) for key in work):
        row: dict[str, Any] = {
            "part": "card",
            "card": torch.cuda.get_device_name(),
            "subject": subject,
            "source": source,
        }
        row |= {"batch": batch, "of_backbone": share(rate, rates[str((BACKBONE, "arrays", batch))])}
        row |= asdict(rate)
        if source == "arrays" and batch == 1:
            row |= asdict(single[subject])
        found.append(row | (apart if subject == SUBJECT else {}))
    return found


def on_card(stages: Stages) -> Callable[[UInt8[np.ndarray, "b h w 3"]], object]:
    """The bare backbone there, waited for."""
    module = stages.cuda().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(pixels: UInt8[np.ndarray, "b h w 3"]) -> object:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            maps = module(torch.from_numpy(pixels).cuda())
        torch.cuda.synchronize()
        return maps

    return run


def differences(some: Sequence[Prediction], others: Sequence[Prediction]) -> dict[str, float]:
    """The largest between scores, and between heatmaps anywhere, both as a share of the highest score."""
    pairs = list(zip(some, others, strict=True))
    highest = max(other.score for _, other in pairs)
    by_score = max(abs(one.score - other.score) for one, other in pairs)
    by_pixel = max(float(np.abs(one.heatmap - other.heatmap).max()) for one, other in pairs)
    return {
        "score_difference": round(by_score / highest, 8),
        "heatmap_difference": round(by_pixel / highest, 8),
    }
