"""Memory: that it stays flat over any number of images, and how much a process takes at its peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from energyad.detector import AnomalyDetector

SETTLED = 1000
"""Images after which nothing more may be taken."""


def resident_mb() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mb() -> float:
    """Of this process, so far. (getrusage would count what the parent held before this program was started.)"""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def flat(detector: AnomalyDetector, paths: list[Path], *, count: int) -> dict[str, Any]:
    """Score files over and over through the pipeline, taking down resident memory and time on the way."""
    marks = sorted({mark for mark in (100, SETTLED, 10_000, 100_000) if mark < count} | {count})
    started, found, settled, most = time.perf_counter(), [], 0.0, 0.0
    for number, _ in enumerate(_inspections(detector, paths, count), start=1):
        if number % 500 == 0 or number in marks:
            now = resident_mb()
            most = max(most, now)
            settled = settled or (now if number >= min(SETTLED, count) else 0.0)
            if number in marks:
                found.append([number, round(time.perf_counter() - started, 2), round(now, 1)])
    return {
        "part": "flat",
        "subject": "energyad",
        "count": count,
        "network_size": detector.image_size[0],
        "peak_mb": round(peak_mb(), 1),
        "growth_after_1000_mb": round(most - settled, 1),
        "images_seconds_mb": found,
    }


def _inspections(detector: AnomalyDetector, paths: list[Path], count: int) -> Iterator[object]:
    return detector.score_images(islice(cycle(paths), count))


def in_a_process(*arguments: str) -> dict[str, Any]:
    """What `python -m benchmarks.speed.child` says with these arguments; a process of its own for a peak of its own."""
    command = [sys.executable, "-m", "benchmarks.speed.child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])
