"""Where the time of a prediction goes, part by part: what is left outside the bare backbone, in PyTorch on any device.

This is the code that runs on a graphics card; without one it runs on the processor's device of PyTorch.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch

from benchmarks.speed.images import Images
from energyad.detector import AnomalyDetector
from energyad.energy.discriminator import Discriminator
from energyad.energy.memory_bank import MemoryBankEnergy
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.reranking import Reranker
from energyad.energy.whitening import Whitening
from energyad.features.extractor import FeatureExtractor
from energyad.runtimes.eager import EagerRuntime
from energyad.scoring.scorer import EnergyHead

BATCH: Final = 16
BACKBONE, HALF = "backbone", "backbone on the image at half its size"
METHODS: Final[Mapping[str, tuple[tuple[type, str], ...]]] = {
    BACKBONE: ((FeatureExtractor, "maps_of"),),
    "scaling pixels, resampling features": ((FeatureExtractor, "forward"),),
    "whitening": ((Whitening, "forward"),),
    "autoencoder": ((AutoencoderEnergy, "forward"), (AutoencoderEnergy, "terms")),
    "memory bank": ((MemoryBankEnergy, "squared_distance"),),
    "discriminator": ((Discriminator, "forward"),),
    "closer look": ((Reranker, "forward"),),
    "products, smoothing, heatmap": ((EnergyHead, "forward"),),
    "copies to the device and back": ((EagerRuntime, "run"),),
    "verdict and regions": ((AnomalyDetector, "score_pixels"),),
}
"""Each part, and the methods whose time is its own where no other part runs within."""


class Stopwatch:
    """Adds up the seconds of parts that run within each other: each second counts for the innermost.

    Args:
        wait: Called before a time is taken, so that nothing still runs.
        clock: Tells the time.
    """

    def __init__(self, wait: Callable[[], None], clock: Callable[[], float] = time.perf_counter) -> None:
        self._wait, self._clock = wait, clock
        self._running: list[str] = []
        self._since = 0.0
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Something of this part runs meanwhile."""
        self._turn()
        self._running.append(part)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        self._wait()
        now = self._clock()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


@contextlib.contextmanager
def timed(stopwatch: Stopwatch, image_size: tuple[int, int]) -> Iterator[None]:
    """All parts are timed meanwhile.

    Args:
        stopwatch: Counts.
        image_size: Of the network's input, height and width; the backbone also sees a smaller one.
    """
    with contextlib.ExitStack() as stack:
        for part, methods in METHODS.items():
            for owner, name in methods:
                method = _timed_method(getattr(owner, name), part, stopwatch, image_size)
                stack.enter_context(mock.patch.object(owner, name, method))
        yield


def _timed_method(
    method: Callable[..., Any], part: str, stopwatch: Stopwatch, image_size: tuple[int, int]
) -> Callable[..., Any]:
    @functools.wraps(method)
    def run(self: Any, *inputs: Any, **options: Any) -> Any:
        is_half = part == BACKBONE and tuple(inputs[0].shape[-2:]) != image_size
        with stopwatch.running(HALF if is_half else part):
            return method(self, *inputs, **options)

    return run


def measure(model: Path, images: Images, *, rounds: int) -> list[dict[str, Any]]:
    """A row for each part: the median of its milliseconds an image over rounds, and of them as a share of the whole.

    Args:
        model: A model folder.
        images: Of which the first `BATCH` arrays are scored in one call.
        rounds: How many times.
    """
    detector = AnomalyDetector.load(model, runtime="torch")
    device = detector.runtime.device.type if isinstance(detector.runtime, EagerRuntime) else "cpu"
    batch = list(images.pixels)[:BATCH]
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    found: list[Mapping[str, float]] = []
    detector.score_pixels(batch)
    for _ in range(rounds):
        stopwatch = Stopwatch(wait)
        with timed(stopwatch, detector.image_size):
            detector.score_pixels(batch)
        found.append(stopwatch.seconds)
    milliseconds = {
        part: statistics.median(1e3 * seconds.get(part, 0.0) / len(batch) for seconds in found)
        for part in (*METHODS, HALF)
        if part in found[0]
    }
    whole = sum(milliseconds.values())
    return [
        {
            "part": "parts",
            "subject": part,
            "source": f"torch, {device}",
            "batch": len(batch),
            "ms_an_image": round(own, 3),
            "of_whole": round(own / whole, 3),
            "of_backbone": round(own / milliseconds[BACKBONE], 3),
        }
        for part, own in sorted(milliseconds.items(), key=lambda pair: -pair[1])
    ]
