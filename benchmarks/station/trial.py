"""A station in a process of its own with a camera, and what every side counted in the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.provenance import ROOT
from benchmarks.station.machines import Broker, ControlRoom, FakeCamera, Plc, Subscriber, Trigger, free_port
from energyad.detector import AnomalyDetector
from energyad.station.cameras import write_frame

NAME: Final = "trial"
SIDE: Final = 256
"""Pixels: of the camera's frames."""
FRAME_RATE: Final = 100
"""Frames a second of the camera, which runs freely: a part's frame is the first that comes after its trigger."""
STATION_NICE: Final = 10
"""Steps by which the station goes before the machines around it, which have processors of their own in a plant; needs
root."""
SETTLE_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Counts:
    """What each side counts.

    Attributes:
        triggers: That the station accepted.
        unanswered: Triggers of which the station's answer did not come: each may have a part, or none.
        parts: Verdicts in the database.
        images: Frames that were scored.
        missing: Parts without a frame of the camera.
        mqtt, modbus, opcua, archive: Different parts that came there.
    """

    triggers: int
    unanswered: int
    parts: int
    images: int
    missing: int
    mqtt: int
    modbus: int
    opcua: int
    archive: int

    @property
    def agree(self) -> bool:
        """Whether nothing is lost and nothing is there that was not triggered."""
        outputs = {self.mqtt, self.modbus, self.opcua, self.archive}
        return (
            outputs == {self.parts}
            and self.images + self.missing == self.parts
            and self.triggers <= self.parts <= self.triggers + self.unanswered
        )


class Trial:
    """One station with its machines.

    Args:
        folder: Where everything is put; empty.
        model: The model.
        threads: Of the station.
        clock: A file with the seconds by which the station's clock is off; None for the machine's clock.
    """

    def __init__(self, folder: Path, model: Path, *, threads: int, clock: Path | None = None) -> None:
        self.folder = folder
        self.model = folder / "models" / "trial"
        shutil.copytree(model, self.model)
        (folder / "database").mkdir(exist_ok=True)
        self.database = folder / "database" / "energyad.db"
        self.camera, self.broker = FakeCamera(), Broker(folder)
        ports = {"modbus": free_port(), "opcua": free_port()}
        (folder / "station.toml").write_text(_station_file(threads, self.broker.port, **ports))
        self.trigger, self.plc = Trigger(ports["modbus"]), Plc(ports["modbus"])
        self.room = ControlRoom(ports["opcua"], NAME)
        self.subscriber: Subscriber | None = None
        self.process: subprocess.Popen[str] | None = None
        self.said: list[str] = []
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._program = ["energyad"] if clock is None else ["benchmarks.station.clocked", str(clock)]
        self._first = ["nice", "-n", str(-STATION_NICE)] if os.geteuid() == 0 else []

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Everything runs while this lasts."""
        self.camera.start()
        self.broker.start()
        self.subscriber = Subscriber(self.broker.port, f"energyad/{NAME}")
        try:
            self.start()
            self.plc.start()
            self.room.start()
            yield
        finally:
            if self.process is not None:
                self.process.send_signal(signal.SIGTERM)
                self.process.wait(60)
            for side in (self.camera, self.broker, self.plc, self.room, self.subscriber, self.trigger):
                side.stop()

    def start(self) -> None:
        """Start the station, and wait until it has a frame of the camera."""
        self.process = subprocess.Popen(
            [*self._first, sys.executable, "-m", *self._program, "run", "station.toml"],
            cwd=self.folder, env=self._environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()
        began, lines = time.monotonic(), len(self.said)
        while not any("views" in line for line in self.said[lines:]):
            if self.process.poll() is not None or time.monotonic() > began + SETTLE_SECONDS:
                raise SystemExit("the station does not start:\n" + "\n".join(self.said[lines:]))
            time.sleep(0.01)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line.rstrip())

    def memory_mb(self) -> float:
        """Of the station's process, resident."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def settle(self) -> tuple[Counts, float]:
        """Wait until everybody counts the same; returns the counts, and the seconds it took."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(Exception):  # the database may be full, or just being made
                counts = self.counts()
                if counts.agree or time.monotonic() > began + SETTLE_SECONDS:
                    return counts, time.monotonic() - began
            if time.monotonic() > began + 2 * SETTLE_SECONDS:
                raise SystemExit("the database cannot be read")
            time.sleep(0.1)

    def counts(self) -> Counts:
        """What each side counts now."""
        with self._reading() as database:
            waiting, parts, images, seen = (
                database.execute(query).fetchone()[0]
                for query in (
                    "SELECT COUNT(*) FROM parts WHERE number IS NULL",
                    "SELECT COUNT(number) FROM parts",
                    "SELECT COUNT(*) FROM results",
                    "SELECT COUNT(DISTINCT part_id) FROM part_views",
                )
            )
        return Counts(
            self.trigger.accepted, self.trigger.unanswered, parts if not waiting else -1, images, parts - seen,
            *(len(set(numbers)) for numbers in self.told().values()),
        )  # fmt: skip

    def told(self) -> dict[str, list[int]]:
        """The numbers of the parts that came to each output, in their order."""
        rows = [
            line for path in (self.folder / "archive").glob("*.csv") for line in path.read_text().splitlines()
        ]
        archived = [int(row.split(",")[0]) for row in rows if not row.startswith("number")]
        mqtt = [] if self.subscriber is None else self.subscriber.numbers
        return {"mqtt": mqtt, "modbus": self.plc.numbers, "opcua": self.room.numbers, "archive": archived}

    def latencies(self) -> list[float]:
        """Milliseconds from trigger to verdict, of the parts that have a frame, in ascending order."""
        query = (
            "SELECT latency FROM parts WHERE latency IS NOT NULL AND id IN (SELECT part_id FROM part_views)"
        )
        with self._reading() as database:
            return sorted(1e3 * latency for (latency,) in database.execute(query))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """The database, by a client that never holds up the station's writing."""
        with contextlib.closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as database:
            yield database


def _station_file(threads: int, broker: int, *, modbus: int, opcua: int) -> str:
    return (
        f'name = "{NAME}"\nmodel = "trial"\nthreads = {threads}\ndatabase = "database/energyad.db"\n'
        '[[views]]\nfolder = "spool"\n'
        '[views.camera]\nsource = "aravis:"\ntimeout = 1.0\npixel_format = "Mono8"\n'
        f"features = {{Width = {SIDE}, Height = {SIDE}, AcquisitionFrameRate = {FRAME_RATE}}}\n"
        '[trigger]\nkind = "modbus"\n[part]\ndeadline = 1.5\n'
        '[images]\nfolder = "kept"\nok_share = 0.0\nquota_gib = 0.1\n'
        f'[mqtt]\nhost = "127.0.0.1"\nport = {broker}\n'
        f"[modbus]\nport = {modbus}\n[opcua]\nport = {opcua}\n"
        '[archive]\nfolder = "archive"\n'
    )


def num_disordered(numbers: Sequence[int]) -> int:
    """Count the places where a part comes for the first time after a later one did."""
    highest, seen, count = 0, set(), 0
    for number in numbers:
        count += number < highest and number not in seen
        highest = max(highest, number)
        seen.add(number)
    return count


def own_ms(model: Path, folder: Path, threads: int, *, rate: float) -> float:
    """Median to read and score one frame's file at the line's pace, nothing else running.

    Between two parts a processor sleeps and its caches go to others; frames without a pause are scored faster.
    """
    detector = AnomalyDetector.load(model, threads=threads)
    gradient = np.add.outer(np.arange(SIDE), np.arange(SIDE)).astype(np.uint8)
    times = []
    for number in range(20):
        path = folder / f"{number}.png"
        write_frame(path, gradient + np.uint8(number))
        began = time.perf_counter()
        detector.score(path)
        times.append(1e3 * (time.perf_counter() - began))
        time.sleep(max(0.0, 1 / rate - times[-1] / 1e3))
    return statistics.median(times[3:])
