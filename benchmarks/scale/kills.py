"""Jobs on a Ray cluster whose driver and workers are killed: does each image stand once in the results?"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow
import pyarrow.parquet
from ray.cluster_utils import Cluster

from benchmarks.robustness.launching import Launcher, fork_lives
from benchmarks.scale.images import write_archive
from benchmarks.scale.processes import scorers
from energyad.images.reading import DEFAULT_MAX_PIXELS
from energyad.integrations.ray import score_archive

SHARD_SIZE: Final = 8
SIDE: Final = 64
NODES: Final = 2
TOO_LONG: Final = 1200.0
"""Seconds after which a job is taken to hang: one that others leave little of the processor is slow, not stuck."""
DAMAGED: Final = 3
"""Files of the archive that are no images: their rows say so, once each."""

Victim = Literal["driver", "worker", "both"]
Phase = Literal["start", "scoring", "finish"]
VICTIMS: Final[tuple[Victim, ...]] = ("driver", "worker", "both")
PHASES: Final[tuple[Phase, ...]] = ("start", "scoring", "finish")


@dataclass(frozen=True)
class Kill:
    """A kill of a job.

    Attributes:
        victim: The driver, one of the workers, or one worker and then the driver.
        phase: Before the first shard is there, after some are, or when all are and the results are written.
        share: Of the shards that are there, or of the start's time.
        delay: Seconds after that.
    """

    victim: Victim
    phase: Phase
    share: float
    delay: float


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """What came of a job that was killed.

    missing: images without a row. doubled: rows of an image beyond its first. unlike: rows that differ from those of a
    job that was not killed. failed: starts of the driver that nobody killed and that did not end well.
    drivers, workers: how many of each were killed at work. by_phase: kills of each phase. starts: of the driver.
    """

    job: int
    images: int
    drivers: int
    workers: int
    by_phase: dict[str, int]
    starts: int
    missing: int
    doubled: int
    unlike: int
    failed: int
    seconds: float

    @property
    def is_clean(self) -> bool:
        """Whether nothing that must not happen did."""
        return not any((self.missing, self.doubled, self.unlike, self.failed))


@dataclass(frozen=True)
class Bench:
    """What all jobs share.

    Attributes:
        root: A folder for their outputs.
        archive: The images.
        model: The model folder.
        address: Of the cluster.
        launcher: Starts drivers.
        expected: The rows of a job that was not killed, by image.
        start_seconds: That it took until its first shard was there.
    """

    root: Path
    archive: Path
    model: Path
    address: str
    launcher: Launcher
    expected: dict[str, dict[str, Any]]
    start_seconds: float

    @property
    def num_shards(self) -> int:
        """Shards of a job."""
        return -(-len(self.expected) // SHARD_SIZE)


def launch() -> None:
    """Fork drivers, see `Launcher`."""
    fork_lives(run_driver)


def run_driver(spec: dict[str, Any]) -> None:
    """Score an archive, as `energyad score --engine ray` does."""
    score_archive(
        [spec["archive"]],
        model=Path(spec["model"]),
        output=spec["output"],
        address=spec["address"],
        shard_size=SHARD_SIZE,
        max_pixels=DEFAULT_MAX_PIXELS,
    )
    Path(spec["output"], "ended").touch()


def draw_kills(dice: random.Random) -> list[Kill]:
    """Return one to three kills in the order of their moments."""
    kills = []
    for _ in range(dice.randint(1, 3)):
        victim = dice.choices(VICTIMS, (4, 4, 2))[0]
        phase = dice.choices(PHASES, (2, 5, 2) if victim == "driver" else (0, 1, 0))[0]
        kills.append(Kill(victim, phase, dice.random(), dice.uniform(0, 0.3)))
    return sorted(kills, key=lambda kill: (PHASES.index(kill.phase), kill.share))


def run_jobs(model: Path, *, jobs: range, images: int, seed: int) -> Iterator[JobCounts]:
    """Kill jobs on one cluster of two nodes with one core each.

    Args:
        model: The model folder.
        jobs: Numbers of the jobs, which their kills are drawn from.
        images: Of each job.
        seed: Of images and kills.
    """
    with tempfile.TemporaryDirectory(prefix="energyad-scale-") as folder:
        root = Path(folder)
        archive = write_archive(
            root / "archive", different=images - DAMAGED, count=images - DAMAGED, side=SIDE, seed=seed
        )
        for number in range(DAMAGED):
            (archive / f"damaged{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
        node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        try:
            for _ in range(NODES - 1):
                cluster.add_node(**node)
            with Launcher(__name__) as launcher:
                bench = _prepare(root, archive, model, cluster.address, launcher)
                for job in jobs:
                    yield run_job(bench, job, random.Random(f"{seed} {job}"))
        finally:
            cluster.shutdown()


def run_job(bench: Bench, job: int, dice: random.Random) -> JobCounts:
    """Start a job, kill it as drawn, start its driver again after each death, and compare its rows."""
    output, started = bench.root / f"job{job}", time.monotonic()
    lives = _Lives(bench, output)
    for kill in draw_kills(dice):
        lives.kill(kill, dice)
    lives.finish()
    rows = read_rows(output)
    found = Counter(row["image"] for row in rows)
    return JobCounts(
        job=job,
        images=len(bench.expected),
        drivers=lives.drivers,
        workers=lives.workers,
        by_phase=dict(lives.by_phase),
        starts=lives.starts,
        missing=len(bench.expected.keys() - found.keys()),
        doubled=sum(found.values()) - len(found),
        unlike=sum(bench.expected.get(row["image"]) != row for row in rows),
        failed=lives.failed,
        seconds=round(time.monotonic() - started, 1),
    )


def read_rows(output: Path) -> list[dict[str, Any]]:
    """Return all rows of a job's results."""
    files = sorted((output / "results").glob("*.parquet"))
    return [row for file in files for row in pyarrow.parquet.read_table(file).to_pylist()]


class _Lives:
    """The lives of a job's driver, one after the other."""

    def __init__(self, bench: Bench, output: Path) -> None:
        self.bench, self.output = bench, output
        self.starts = self.drivers = self.workers = self.failed = 0
        self.by_phase: Counter[str] = Counter()
        self._driver: int | None = None

    def kill(self, kill: Kill, dice: random.Random) -> None:
        """Wait for the moment of a kill, and do it; nothing where the job has ended by then."""
        self._ensure_driver()
        if not self._wait_for(kill):
            return
        at_work = False
        if kill.victim != "driver":
            at_work = self._kill_worker(dice)
        if kill.victim != "worker" and self._driver is not None and self._is_running():
            self.bench.launcher.end(self._driver, signal.SIGKILL)
            self._driver, at_work = None, True
            self.drivers += 1
        self.by_phase[kill.phase] += at_work

    def finish(self) -> None:
        """Let the job end, starting its driver again where it is dead."""
        while not self._has_ended():
            self._ensure_driver()
            self._wait(lambda: not self._is_running())
            if not self._has_ended():
                self.failed += 1
                self._driver = None
                if self.failed > 2:
                    return
        self._wait(lambda: not self._is_running())
        if self._driver is not None:
            self.bench.launcher.alive.discard(self._driver)

    def _ensure_driver(self) -> None:
        if self._driver is None and not self._has_ended():
            self._driver = self.bench.launcher.start(_spec(self.bench, self.output))
            self.starts += 1

    def _wait_for(self, kill: Kill) -> bool:
        """Wait until the moment of a kill; whether the job was still at work then."""
        shards = self.bench.num_shards
        if kill.phase == "start":
            time.sleep(kill.share * self.bench.start_seconds)
        else:
            wanted = shards if kill.phase == "finish" else 1 + int(kill.share * (shards - 1))
            self._wait(lambda: not self._is_running() or _shards_of(self.output) >= wanted)
        time.sleep(kill.delay)
        return self._is_running()

    def _kill_worker(self, dice: random.Random) -> bool:
        running = scorers(os.getpid())
        if not running:
            return False
        try:
            os.kill(dice.choice(running).number, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.workers += 1
        return True

    def _is_running(self) -> bool:
        return self._driver is not None and self.bench.launcher.is_running(self._driver)

    def _has_ended(self) -> bool:
        return (self.output / "ended").exists()

    def _wait(self, is_there: Any) -> None:
        deadline = time.monotonic() + TOO_LONG
        while not is_there():
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self.output}: the job does not go on; see {self.bench.root}/drivers.log"
                )
            time.sleep(0.01)


def _prepare(root: Path, archive: Path, model: Path, address: str, launcher: Launcher) -> Bench:
    """Run a job that is not killed, for its rows and its time."""
    empty = Bench(root, archive, model, address, launcher, {}, 0.0)
    output, started, start_seconds = root / "whole", time.monotonic(), 0.0
    driver = launcher.start(_spec(empty, output))
    while launcher.is_running(driver):
        if start_seconds == 0 and _shards_of(output):
            start_seconds = time.monotonic() - started
        if time.monotonic() - started > TOO_LONG:
            raise TimeoutError("a job that is not killed does not end")
        time.sleep(0.01)
    launcher.alive.discard(driver)
    rows = read_rows(output)
    expected = {row["image"]: row for row in rows}
    if len(rows) != len(expected) or len(rows) != len(list(archive.iterdir())):
        raise RuntimeError(f"a job that was not killed has {len(rows)} rows; see {root}/drivers.log")
    return Bench(root, archive, model, address, launcher, expected, start_seconds)


def _shards_of(output: Path) -> int:
    return len(list(output.glob("shards/0*.parquet")))


def _spec(bench: Bench, output: Path) -> dict[str, Any]:
    return {
        "archive": str(bench.archive),
        "model": str(bench.model),
        "output": str(output),
        "address": bench.address,
        "log": str(bench.root / "drivers.log"),
    }
