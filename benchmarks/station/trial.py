"""A station in a process of its own, fed with parts at a steady rate, and what every side counted in the end."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.provenance import ROOT
from benchmarks.station.machines import Broker, ControlRoom, Plc, Subscriber, free_port
from energyad.detector import AnomalyDetector
from energyad.line.database import Database
from energyad.line.deliveries import count_deliveries
from energyad.line.tables import Arrival, Part, Result
from energyad.station.latency import quantile

NAME = "trial"
FAULTS = ("kill", "broker", "plc", "control room", "model replaced")
SETTLE_SECONDS = 300.0


@dataclass(frozen=True)
class Counts:
    """What each side counted.

    Attributes:
        sent: Images that were put into the folder.
        parts: Verdicts in the database.
        mqtt, modbus, opcua, archive: Different parts that came there.
        doubled: Parts that came to MQTT, Modbus or OPC UA more than once, which at least once allows.
        disordered: Places at all outputs where a part came before an earlier one for the first time.
        lost: Parts that the database or an output lacks, and results without a part.
        faults: How many were made, of each kind.
        p50_ms, p99_ms, worst_ms: From trigger to verdict.
        own_ms: Median to decode and score one image alone, before the trial.
        ratio: p99 over own.
        memory_mb, memory_end_mb: Of the station after the first tenth of the parts, and at the end.
        seconds: Of the whole trial.
    """

    sent: int
    parts: int
    mqtt: int
    modbus: int
    opcua: int
    archive: int
    doubled: int
    disordered: int
    lost: int
    faults: dict[str, int]
    p50_ms: float
    p99_ms: float
    worst_ms: float
    own_ms: float
    ratio: float
    memory_mb: float
    memory_end_mb: float
    seconds: float


class Trial:
    """One station with its machines.

    Args:
        folder: Where everything is put; empty.
        model: The model.
        images: Image files, which are used again and again.
        threads: Of the station.
    """

    def __init__(self, folder: Path, model: Path, images: Sequence[Path], *, threads: int) -> None:
        self.folder, self._images = folder, images
        shutil.copytree(model, folder / "models" / "trial")
        self.model = folder / "models" / "trial"
        (folder / "incoming").mkdir()
        self.broker = Broker(folder)
        self._ports = {"modbus": free_port(), "opcua": free_port()}
        (folder / "station.toml").write_text(
            f'name = "{NAME}"\nmodel = "trial"\nthreads = {threads}\n'
            '[[views]]\nfolder = "incoming"\ninterval = 0.01\n'
            '[images]\nfolder = "kept"\nok_share = 0.0\n'
            f'[mqtt]\nhost = "127.0.0.1"\nport = {self.broker.port}\n'
            f"[modbus]\nport = {self._ports['modbus']}\n[opcua]\nport = {self._ports['opcua']}\n"
            '[archive]\nfolder = "archive"\n'
        )
        self.own_ms = _own_ms(self.model, images, threads)
        self.process: subprocess.Popen[str] | None = None
        self._sent = 0

    def start(self) -> None:
        """Start the station, and wait until it looks."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "energyad", "run", "station.toml"],
            cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        lines = self.process.stderr
        assert lines is not None
        while "views" not in lines.readline():
            assert self.process.poll() is None
        threading.Thread(target=lambda: list(lines), daemon=True).start()

    def run(self, *, parts: int, rate: float, faults: Sequence[str], seed: int) -> Counts:
        """Feed parts and make faults, evenly over them; then wait until all are told."""
        began = time.monotonic()
        self.broker.start()
        subscriber = Subscriber(self.broker.port, f"energyad/{NAME}")
        plc, room = Plc(self._ports["modbus"]), ControlRoom(self._ports["opcua"], NAME)
        self.start()
        for machine in (plc, room):
            machine.start()
        order = list(faults)
        random.Random(seed).shuffle(order)
        memory = 0.0
        step = max(1, parts // (len(order) + 1))
        next_part = time.monotonic()
        for number in range(parts):
            time.sleep(max(0.0, next_part - time.monotonic()))
            next_part += 1 / rate
            self._put(number)
            if number == parts // 10:
                memory = self._memory()
            if order and (number + 1) % step == 0:
                self._fault(order.pop(), plc, room)
        self._await_end(parts, subscriber, plc, room)
        memory_end = self._memory()
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        for side in (plc, room, subscriber, self.broker):
            side.stop()
        return self._counts(subscriber, plc, room, faults, memory, memory_end, time.monotonic() - began)

    def _put(self, number: int) -> None:
        source = self._images[number % len(self._images)]
        target = self.folder / "incoming" / f"{number:06d}{source.suffix}"
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(source.read_bytes())
        temporary.rename(target)
        self._sent += 1

    def _memory(self) -> float:
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _fault(self, name: str, plc: Plc, room: ControlRoom) -> None:
        if name == "kill":
            assert self.process is not None
            self.process.kill()
            self.process.wait(30)
            self.start()
        elif name == "broker":
            self.broker.stop()
            threading.Timer(3.0, self.broker.start).start()
        elif name in ("plc", "control room"):
            machine = plc if name == "plc" else room
            machine.away.set()
            threading.Timer(2.0, machine.away.clear).start()
        else:
            detector = AnomalyDetector.load(self.model, threads=1)
            detector.save(self.model)

    def _await_end(self, parts: int, *sides: Subscriber | Plc | ControlRoom) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception), Database(self.folder / "energyad.db") as database:
                counts = [output.counts["delivered"] for output in count_deliveries(database)]
                if counts and min(counts) >= parts:
                    return
            time.sleep(0.5)

    def _counts(
        self, subscriber: Subscriber, plc: Plc, room: ControlRoom, faults: Sequence[str],
        memory: float, memory_end: float, seconds: float,
    ) -> Counts:  # fmt: skip
        with Database(self.folder / "energyad.db") as database, database.read() as session:
            numbers = session.scalars(select(Part.number).order_by(Part.id)).all()
            latencies = sorted(
                latency for latency in session.scalars(select(Part.latency)) if latency is not None
            )
            results = session.scalar(select(func.count(Result.id))) or 0
            names = session.scalar(select(func.count(func.distinct(Arrival.path)))) or 0
        rows = [
            line for path in (self.folder / "archive").glob("*.csv") for line in path.read_text().splitlines()
        ]
        archived = [int(row.split(",")[0]) for row in rows if not row.startswith("number")]
        told = {"mqtt": subscriber.numbers, "modbus": plc.numbers, "opcua": room.numbers, "archive": archived}
        wanted = set(range(1, self._sent + 1))
        lost = len(wanted - set(numbers)) + abs(results - self._sent) + abs(names - self._sent)
        p99 = 1e3 * quantile(latencies, 0.99)
        return Counts(
            sent=self._sent, parts=len(numbers),
            **{name: len(set(side)) for name, side in told.items()},
            doubled=sum(len(side) - len(set(side)) for side in told.values()),
            disordered=sum(map(_disordered, told.values())),
            lost=lost + sum(len(wanted - set(side)) for side in told.values()),
            faults={name: list(faults).count(name) for name in sorted(set(faults))},
            p50_ms=round(1e3 * quantile(latencies, 0.5), 1), p99_ms=round(p99, 1),
            worst_ms=round(1e3 * latencies[-1], 1), own_ms=round(self.own_ms, 1), ratio=round(p99 / self.own_ms, 2),
            memory_mb=round(memory, 1), memory_end_mb=round(memory_end, 1), seconds=round(seconds, 1),
        )  # fmt: skip


def _disordered(numbers: Sequence[int]) -> int:
    """Places where a part comes for the first time after a later one did."""
    highest, seen, count = 0, set(), 0
    for number in numbers:
        count += number < highest and number not in seen
        highest = max(highest, number)
        seen.add(number)
    return count


def _own_ms(model: Path, images: Sequence[Path], threads: int) -> float:
    """Median to read and score one image, nothing else running."""
    detector = AnomalyDetector.load(model, threads=threads)
    times = []
    for path in [*images, *images][:20]:
        began = time.perf_counter()
        detector.score(path)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[3:])
