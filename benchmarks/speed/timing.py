"""Timing of several subjects side by side, so that a moment's load falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rate:
    """Medians over rounds. cpu_ms: of all threads together, for one image; it hardly depends on others' load."""

    images_per_second: float
    cpu_ms: float


@dataclass(frozen=True)
class Latency:
    """Of single calls of one image, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


def interleave(subjects: Mapping[str, Callable[[], int]], *, rounds: int) -> dict[str, Rate]:
    """Call every subject once a round; each returns how many images it worked on. The first round is not counted."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}
    for number in range(rounds + 1):
        for name, work in subjects.items():
            wall, cpu = time.perf_counter(), time.process_time()
            count = work()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                found[name].append((count / wall, 1000 * cpu / count))
    return {name: Rate(*np.median(values, axis=0).round(3).tolist()) for name, values in found.items()}


def latencies(subjects: Mapping[str, Callable[[int], object]], *, calls: int) -> dict[str, Latency]:
    """Time each call alone, subjects taking turns. Their argument counts the calls."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(-3, calls):
        for name, work in subjects.items():
            started = time.perf_counter()
            work(number % calls)
            if number >= 0:
                found[name].append(1000 * (time.perf_counter() - started))
    return {
        name: Latency(*np.percentile(values, [50, 95, 99]).round(3).tolist())
        for name, values in found.items()
    }
