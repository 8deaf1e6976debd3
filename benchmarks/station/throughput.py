"""Parts at a steady rate through a GigE camera: none lost, none doubled, in order, in time, in flat memory."""

from __future__ import annotations

import os
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.station.machines import Machine, Subscriber
from benchmarks.station.trial import FRAME_RATE, Trial, num_disordered, own_ms
from energyad.station.latency import quantile

SCHEDULERS: Final = {os.SCHED_OTHER: "other", os.SCHED_FIFO: "fifo", os.SCHED_RR: "rr"}


@dataclass(frozen=True)
class Throughput:
    """What a run came to.

    Attributes:
        lost: Triggers that the database or an output has no part of.
        doubled: Parts that came to an output more than once.
        disordered: Places at all outputs where a part came before an earlier one.
        refused: Triggers that the station did not accept.
        p50_ms, p99_ms, worst_ms: From trigger to verdict.
        out_ms: The same three at each machine: from sending the trigger until the part was read there. None where a
            trigger was not answered, so that nobody knows which part is whose.
        own_ms: Median to read and score one frame alone, at the same rate, before the run.
        ratio: p99 over own.
        memory_mb: Of the station after 10 %, 50 % and 100 % of the parts.
        seconds: Of the whole run.
        scheduler: Of the operating system for all programs of the run: other (the default), or rr and fifo (real time).
    """

    lost: int
    doubled: int
    disordered: int
    refused: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    out_ms: dict[str, tuple[float, float, float] | None]
    own_ms: float
    ratio: float
    memory_mb: tuple[float, ...]
    seconds: float
    scheduler: str


def run_throughput(model: Path, *, parts: int, rate: float, threads: int) -> dict[str, Any]:
    """Trigger parts at a steady rate; returns the row."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        one_alone = own_ms(model, folder, threads, rate=rate)
        trial = Trial(folder, model, threads=threads)
        began = time.monotonic()
        memory = []
        with trial.running():
            time.sleep(2.0)
            generator = random.Random(0)
            began_parts = time.monotonic()
            for number in range(1, parts + 1):
                # Within a period of the camera, or each part would wait as long for its frame.
                moment = began_parts + number / rate + generator.uniform(0, 1 / FRAME_RATE)
                time.sleep(max(0.0, moment - time.monotonic()))
                trial.trigger.fire()
                if number in (parts // 10, parts // 2):
                    memory.append(round(trial.memory_mb(), 1))
            counts, _ = trial.settle()
            memory.append(round(trial.memory_mb(), 1))
        told = trial.told()
        latencies = trial.latencies()
        p99 = quantile(latencies, 0.99)
        fewest = min(counts.parts, *(len(set(numbers)) for numbers in told.values()))
        result = Throughput(
            lost=counts.triggers - fewest,
            doubled=sum(len(numbers) - len(set(numbers)) for numbers in told.values()),
            disordered=sum(map(num_disordered, told.values())),
            refused=trial.trigger.refused,
            p50_ms=round(quantile(latencies, 0.5), 1), p99_ms=round(p99, 1), worst_ms=round(latencies[-1], 1),
            out_ms=times_at_machines(trial),
            own_ms=round(one_alone, 1), ratio=round(p99 / one_alone, 2),
            memory_mb=tuple(memory), seconds=round(time.monotonic() - began, 1),
            scheduler=SCHEDULERS.get(os.sched_getscheduler(0), "unknown"),
        )  # fmt: skip
        return {"rate": rate, **asdict(counts), **asdict(result)}


def times_at_machines(trial: Trial) -> dict[str, tuple[float, float, float] | None]:
    """Median, 99th percentile and worst of the milliseconds from sending a trigger to reading its part."""
    assert trial.subscriber is not None
    sides: dict[str, Machine | Subscriber] = {
        "mqtt": trial.subscriber,
        "modbus": trial.plc,
        "opcua": trial.room,
    }
    if trial.trigger.unanswered:
        return dict.fromkeys(sides)
    sent = dict(enumerate(trial.trigger.times, start=1))
    quantiles: dict[str, tuple[float, float, float] | None] = {}
    for name, side in sides.items():
        first: dict[int, float] = {}
        for number, moment in zip(side.numbers, side.times, strict=True):
            first.setdefault(number, moment)
        waits = sorted(1e3 * (moment - sent[number]) for number, moment in first.items())
        p50, p99 = quantile(waits, 0.5), quantile(waits, 0.99)
        quantiles[name] = (round(p50, 1), round(p99, 1), round(waits[-1], 1))
    return quantiles
