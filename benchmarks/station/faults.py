"""A seeded mix of faults, one at a time: after each, every side counts the same, and the log says what happened."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.station.trial import SIDE, Trial, num_disordered
from energyad.detector import AnomalyDetector
from energyad.detector.recalibration import recalibrate
from energyad.station.cameras import write_frame

GAP_SECONDS: Final = 0.25
"""Between two triggers."""
DISK_MB: Final = 64
SAID_SECONDS: Final = 60.0
"""How long the log is waited for."""
EXPECTED: Final[dict[str, tuple[str, ...]]] = {
    "camera": (r"view front: no camera at aravis:", r"view front: the camera is back"),
    "broker": (r"mqtt: no delivery \(",),
    "plc": (r"modbus: .* not acknowledged", r"modbus: .* acknowledged again"),
    "control room": (r"opcua: .* not acknowledged", r"opcua: .* acknowledged again"),
    "disk full": (r"not available \(database or disk is full\)|not available \(disk I/O error\)",),
    "kill": (r"station trial: views ",),
    "clock": (r"the clock was set (back|forward) by",),
    "model replaced": (r"view front: .* was replaced",),
    "recalibrated": (r"view front: .* was calibrated anew",),
}
"""What each fault is to be found by in the log: each line once."""
_OF_A_PART: Final = re.compile(r"^(ok|ng|review|dark|saturated|no_part|blurred)  ")
_REFUSED: Final = re.compile(r"no frame within .* of the trigger of")


@dataclass
class Kind:
    """What faults of one kind came to.

    Attributes:
        made: How many were made.
        agreed: After how many every side counted the same.
        said: How many the log says, each in the lines that are expected, once.
        other_lines: Lines of the log that are neither of the fault nor of a part.
        settled_s: Seconds until all counted the same, the longest.
    """

    made: int = 0
    agreed: int = 0
    said: int = 0
    other_lines: int = 0
    settled_s: float = 0.0


@dataclass
class Mix:
    """Makes faults in a trial.

    Args:
        trial: It runs.
        offset_file: Holds the offset of the station's clock.
        seed: Of the order.
    """

    trial: Trial
    offset_file: Path
    good: Path
    seed: int
    kinds: dict[str, Kind] = field(default_factory=lambda: defaultdict(Kind))
    others: list[str] = field(default_factory=list)
    _offset: int = 0

    def run(self, names: list[str]) -> None:
        """Make each of these faults, in a seeded order."""
        order = list(names)
        random.Random(self.seed).shuffle(order)
        actions: dict[str, Callable[[], None]] = {
            "camera": self._camera, "broker": self._broker, "disk full": self._disk_full, "kill": self._kill,
            "plc": lambda: self._away(self.trial.plc), "control room": lambda: self._away(self.trial.room),
            "clock": self._clock, "model replaced": self._model, "recalibrated": self._recalibrate,
        }  # fmt: skip
        self._parts(4)
        self.trial.settle()
        for name in order:
            first_line = len(self.trial.said)
            self._parts(2)
            actions[name]()
            self._parts(2)
            counts, seconds = self.trial.settle()
            kind = self.kinds[name]
            kind.made += 1
            kind.agreed += counts.agree
            kind.settled_s = max(kind.settled_s, round(seconds, 1))
            self._note_lines(name, kind, first_line)
            print(f"{name}: {counts}", flush=True)

    def _note_lines(self, name: str, kind: Kind, first_line: int) -> None:
        deadline = time.monotonic() + SAID_SECONDS
        while True:
            lines = [line for line in self.trial.said[first_line:] if not _OF_A_PART.match(line)]
            found = [sum(bool(re.search(wanted, line)) for line in lines) for wanted in EXPECTED[name]]
            if all(found) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        kind.said += all(count == 1 for count in found)
        others = [line for line in lines if not any(re.search(wanted, line) for wanted in EXPECTED[name])]
        others = [line for line in others if not _REFUSED.search(line)]
        kind.other_lines += len(others)
        self.others += [f"{name}: {line}" for line in others]
        if not all(count == 1 for count in found) or others:
            print(f"  {name}: found {found}; others {others}", flush=True)

    def _parts(self, count: int) -> None:
        for _ in range(count):
            self.trial.trigger.fire()
            time.sleep(GAP_SECONDS)

    def _during(self, seconds: float) -> None:
        self._parts(round(seconds / GAP_SECONDS))

    def _camera(self) -> None:
        self.trial.camera.stop()
        self._during(3.0)
        self.trial.camera.start()

    def _broker(self) -> None:
        self.trial.broker.stop()
        self._during(3.0)
        self.trial.broker.start()

    def _away(self, machine: Any) -> None:
        machine.away.set()
        self._during(7.0)
        machine.away.clear()

    def _disk_full(self) -> None:
        with closing(sqlite3.connect(self.trial.database, timeout=30)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else the log has room for some parts
        filler = self.trial.database.with_name("filler")
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        self._during(3.0)
        filler.unlink()

    def _kill(self) -> None:
        assert self.trial.process is not None
        self.trial.trigger.fire()
        self.trial.process.kill()
        self.trial.process.wait(30)
        self.trial.start()

    def _clock(self) -> None:
        self._offset = 0 if self._offset else -3600
        self.offset_file.write_text(f"{self._offset:+d}\n")
        self._during(2.0)

    def _model(self) -> None:
        AnomalyDetector.load(self.trial.model, threads=1).save(self.trial.model)

    def _recalibrate(self) -> None:
        detector = AnomalyDetector.load(self.trial.model, threads=1)
        recalibrate(detector, sorted(self.good.glob("*.png"))).save(self.trial.model)


def run_faults(model: Path, *, count: int, seed: int, threads: int, kinds: list[str]) -> dict[str, Any]:
    """Make a mix of faults, of each kind as many; returns the row."""
    with tempfile.TemporaryDirectory() as place, _small_disk(Path(place) / "database"):
        folder = Path(place)
        offset = folder / "offset"
        offset.write_text("+0\n")
        trial = Trial(folder, model, threads=threads, clock=offset if "clock" in kinds else None)
        mix = Mix(trial, offset, _good_parts(folder / "good"), seed)
        began = time.monotonic()
        with trial.running():
            mix.run([kinds[number % len(kinds)] for number in range(count)])
            counts = trial.counts()
        told = trial.told()
        return {
            "seed": seed,
            **vars(counts),
            "agree": counts.agree,
            "doubled": sum(len(numbers) - len(set(numbers)) for numbers in told.values()),
            "disordered": sum(map(num_disordered, told.values())),
            "refused": trial.trigger.refused,
            "faults": {name: vars(kind) for name, kind in sorted(mix.kinds.items())},
            "seconds": round(time.monotonic() - began, 1),
        }


def _good_parts(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(12):
        write_frame(folder / f"{number}.png", generator.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8))
    return folder


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own for the database, which can be filled; needs the rights to mount one."""
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
