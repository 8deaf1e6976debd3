"""Plans measured on this machine, kept for the next time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from energyad.errors import DataError
from energyad.files import atomic_write, cache_folder
from energyad.runtimes.interface import Runtime
from energyad.runtimes.plan import Plan, available_threads, default_plan

MIN_IMAGES_TO_TUNE = 1000
"""Images from which on a second's measurement is won back."""
SECONDS_EACH, ROUNDS = 0.05, 3
BATCH_SIZES = (1, 2, 4, 8)


def plan_for(name: str, graph: bytes, *, threads: int | None, tiles: int = 1) -> Plan:
    """The plan measured for this engine, model, machine and number of threads, else the default one."""
    plan = default_plan(threads, tiles=tiles)
    # An engine that is not installed has no plan; what to do about it is said where it is opened.
    with contextlib.suppress(OSError, ValueError, TypeError, ImportError):
        values = json.loads(_place(name, graph, plan.allowed).read_text(encoding="utf-8"))
        stored = Plan(**values)
        if min(values.values()) >= 1 and stored.allowed == plan.allowed:
            return stored
    return plan


def tuned(runtime: Runtime, graph: bytes, *, shape: tuple[int, int]) -> Runtime:
    """The runtime under the plan that is fastest here: the one kept, else measured by about a second of trying."""
    allowed = runtime.plan.allowed
    if runtime.name == "torch" or _place(runtime.name, graph, allowed).is_file():
        return runtime  # PyTorch shares threads out by itself; a plan that is kept is in use already
    plan = measure(runtime, shape=shape)
    with contextlib.suppress(DataError):  # a cache that cannot be written costs the next measurement only
        atomic_write(_place(runtime.name, graph, allowed), json.dumps(asdict(plan)))
    return runtime.with_plan(plan)


def measure(runtime: Runtime, *, shape: tuple[int, int]) -> Plan:
    """The plan that scores most images a second.

    One thread is always among the candidates, so more are taken only where they are faster. Rounds are interleaved
    and the median taken: a moment's load falls on all candidates alike.
    """
    plans = list(candidates(runtime.plan.allowed))
    runtimes = [runtime.with_plan(plan) for plan in plans]
    rates: list[list[float]] = [[] for _ in plans]
    for _ in range(ROUNDS):
        for candidate, measured in zip(runtimes, rates, strict=True):
            measured.append(_rate(candidate, shape))
    return plans[max(range(len(plans)), key=lambda index: median(rates[index]))]


def candidates(allowed: int) -> Iterator[Plan]:
    """Batch sizes on one thread; calls side by side; calls that share all threads."""
    for size in BATCH_SIZES if allowed == 1 else (1, 4):
        yield Plan(size, concurrency=1, threads=1, allowed=allowed)
    if allowed > 1:
        yield from (Plan(size, concurrency=allowed, threads=1, allowed=allowed) for size in BATCH_SIZES)
        yield from (Plan(size, concurrency=1, threads=allowed, allowed=allowed) for size in (1, 4, 16))


def _rate(runtime: Runtime, shape: tuple[int, int]) -> float:
    """Images a second, over batches that fill all concurrency twice."""
    count = 2 * runtime.plan.concurrency * runtime.plan.batch_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), dtype=np.uint8)
    runtime.run(pixels[: runtime.plan.batch_size])  # the first call of a shape allocates
    scored, started = 0, perf_counter()
    while (elapsed := perf_counter() - started) < SECONDS_EACH or not scored:
        runtime.run(pixels)
        scored += count
    return scored / elapsed


def _place(name: str, graph: bytes, allowed: int) -> Path:
    package = {"torch": "torch", "openvino": "openvino"}.get(name, "onnxruntime")
    facts = (
        name,
        metadata.version(package),
        _processor(),
        available_threads(),
        allowed,
        hashlib.sha256(graph).hexdigest(),
    )
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return cache_folder() / "plans" / f"{key}.json"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line
    return platform.processor() or platform.machine()
