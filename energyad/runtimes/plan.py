"""How a runtime uses the processor: how many images a call takes, and how many calls run at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore, Lock
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from energyad.errors import SettingsError
from energyad.images.prefetch import ordered_map
from energyad.runtimes.interface import RawScores

if TYPE_CHECKING:
    from jaxtyping import UInt8

BATCH_SIZE = 4
"""Unmeasured, on a CPU: activations of few images stay in its cache, and large batches are slower an image."""


@dataclass(frozen=True)
class Plan:
    """`concurrency` calls at once, each of up to `batch_size` images on `threads` threads of its own.

    allowed: threads that the user gave; a plan may use fewer where that is faster.
    """

    batch_size: int
    concurrency: int
    threads: int
    allowed: int

    @property
    def workers(self) -> int:
        """Threads that read files and score: one more than may run, so that waiting for a disk costs nothing."""
        return self.allowed + 1


def available_threads() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_plan(threads: int | None, *, tiles: int = 1) -> Plan:
    """One thread a call and as many calls as threads: they never wait for one another. None: all cores.

    tiles: of an image; each takes the memory of an untiled image.
    """
    if threads is not None and threads < 0:
        raise SettingsError(f"threads = {threads}: give at least 1, or leave it out for all cores")
    allowed = threads or available_threads()
    return Plan(max(1, BATCH_SIZE // tiles), concurrency=allowed, threads=1, allowed=allowed)


Infer: TypeAlias = "Callable[[UInt8[np.ndarray, 'b h w 3']], RawScores]"


class ConcurrentCalls:
    """Cuts batches of any size into calls of the plan's size, and runs as many at once as the plan allows.

    Calls may come from any number of threads; together they never have more than `plan.concurrency` running.

    Args:
        infer: Scores a batch.
        plan: How the processor is used.
        infer_alone: Scores a single image that comes while nothing else runs, and so has all threads to itself;
            `infer` where None.
    """

    def __init__(self, infer: Infer, plan: Plan, *, infer_alone: Infer | None = None) -> None:
        self.infer = infer
        self.infer_alone = infer_alone or infer
        self.plan = plan
        self._free = BoundedSemaphore(plan.concurrency)
        self._lock = Lock()
        self._running = 0

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch."""
        size = self.plan.batch_size
        if len(pixels) <= size:
            return self._one(pixels, is_single=len(pixels) == 1)
        parts = [pixels[start : start + size] for start in range(0, len(pixels), size)]
        results = list(ordered_map(self._one, parts, workers=min(self.plan.concurrency, len(parts))))
        known = [[part for part in parts if part is not None] for parts in zip(*results, strict=True)]
        return RawScores(*(np.concatenate(parts) for parts in known if parts))

    def _one(self, pixels: UInt8[np.ndarray, "b h w 3"], *, is_single: bool = False) -> RawScores:
        with self._free:
            with self._lock:
                infer = self.infer_alone if is_single and self._running == 0 else self.infer
                self._running += 1
            try:
                return infer(pixels)
            finally:
                with self._lock:
                    self._running -= 1


class SerialExecutor:
    """Calls from any number of threads, run one after another by a thread of their own, which stays.

    A graphics card's libraries keep what they plan for a network to the thread that asked: one that comes and goes with
    a stream of files pays seconds for it each time.
    """

    def __init__(self, infer: Callable[[UInt8[np.ndarray, "b h w 3"]], RawScores]) -> None:
        self.infer = infer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="energyad-card")

    def __call__(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """The call's result, or the error that it raised."""
        return self._thread.submit(self.infer, pixels).result()
