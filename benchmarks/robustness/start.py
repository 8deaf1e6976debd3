"""How long a watcher takes to start where its database holds many results."""

from __future__ import annotations

import datetime
import hashlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert

from benchmarks.robustness.watching import SIZE, score_files
from energyad.line.database import Database
from energyad.line.journal import read_journal
from energyad.line.results_file import ResultsFile
from energyad.line.store import LineStore
from energyad.line.tables import SCORED, Arrival, Result, Stream
from energyad.line.watch import Watcher

PRESENT: Final = 1_000
"""Files with a result that still lie in the folder."""
REPEATS: Final = 5
_CHUNK: Final = 5_000


@dataclass(frozen=True, kw_only=True)
class StartTimes:
    """Of one number of results. Seconds are medians of `REPEATS` starts.

    ready_seconds: from opening the database until the folder was looked at, which holds 1,000 scored files.
    program_seconds: of `energyad watch`, from its start until it says that it watches; with a model, else None.
    memory_mib: most memory of the process that measured, the making of the results included.
    """

    results: int
    present: int
    database_mib: int
    results_file_mib: int
    ready_seconds: float
    ready_worst_seconds: float
    program_seconds: float | None
    memory_mib: int


def measure_start(results: int, *, model: Path | None = None) -> StartTimes:
    """Make a database of so many results and a folder, and start watchers on them."""
    with tempfile.TemporaryDirectory(prefix="energyad-start-") as name:
        root = Path(name)
        _make(root, results)
        ready = [_ready_seconds(root) for _ in range(REPEATS)]
        program = None
        if model is not None:
            program = statistics.median(_program_seconds(root, model) for _ in range(REPEATS))
        return StartTimes(
            results=results,
            present=PRESENT,
            database_mib=(root / "energyad.db").stat().st_size >> 20,
            results_file_mib=(root / "results.jsonl").stat().st_size >> 20,
            ready_seconds=round(statistics.median(ready), 3),
            ready_worst_seconds=round(max(ready), 3),
            program_seconds=None if program is None else round(program, 2),
            memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        )


def _make(root: Path, results: int) -> None:
    folder = root / "incoming"
    folder.mkdir()
    for number in range(PRESENT):
        (folder / f"{number:07d}.png").write_bytes(number.to_bytes(4, "big") * (SIZE // 4))
    with Database(root / "energyad.db") as database:
        store = LineStore(database, out=root / "results.jsonl", folder=folder)
        with ResultsFile(database, store.stream_id, store.out) as file:
            _watch(store, folder, rounds=2)
            file.tell()
        line = read_journal(store.out)[0].json_line()
        for numbers in _ranges(PRESENT, results):
            _add(database, store, line, numbers)
        with ResultsFile(database, store.stream_id, store.out):
            pass
        store.end()


def _watch(store: LineStore, folder: Path, *, rounds: int = 1) -> None:
    watcher = Watcher(folder, store, score_files, settle=0.0)
    for _ in range(rounds):
        for _line in watcher.look(threading.Event()):
            pass


def _ranges(first: int, end: int) -> Iterator[range]:
    for start in range(first, end, _CHUNK):
        yield range(start, min(end, start + _CHUNK))


def _add(database: Database, store: LineStore, line: str, numbers: range) -> None:
    """Results of files that are gone by now."""
    now = datetime.datetime.now(datetime.UTC)
    arrivals: list[dict[str, Any]] = [
        {
            "id": number + 1,
            "source_id": store._source_id,
            "path": f"{number:07d}.png",
            "size": SIZE,
            "mtime_ns": number,
            "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
            "fingerprint": f"1:{number}:{SIZE}:{number}:{number}",
            "state": SCORED,
            "watcher_id": store.watcher_id,
            "attempts": 1,
        }
        for number in numbers
    ]
    results: list[dict[str, Any]] = [
        {
            "stream_id": store.stream_id,
            "number": number + 1,
            "arrival_id": number + 1,
            "scored_at": now,
            "model_name": "stub",
            "model_sha256": "0",
            "verdict": "ok",
            "score": float(number % 251),
            "quarantined": False,
            "line": line.replace("0000000.png", f"{number:07d}.png"),
        }
        for number in numbers
    ]
    with database.write() as session:
        session.execute(insert(Arrival), arrivals)
        session.execute(insert(Result), results)
        session.get_one(Stream, store.stream_id).last_number = numbers[-1] + 1


def _ready_seconds(root: Path) -> float:
    started = time.perf_counter()
    with Database(root / "energyad.db") as database:
        store = LineStore(database, out=root / "results.jsonl", folder=root / "incoming")
        store.latest_parts("0", window=200)
        with ResultsFile(database, store.stream_id, store.out):
            _watch(store, root / "incoming", rounds=2)
            seconds = time.perf_counter() - started
        store.end()
    return seconds


def _program_seconds(root: Path, model: Path) -> float:
    command = [sys.executable, "-m", "energyad", "watch", str(root / "incoming"), "--model", str(model)]
    command += ["--out", str(root / "results.jsonl"), "--interval", "0.05", "--threads", "1"]
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if process.stderr is None:
        raise RuntimeError("no pipe")
    for text in process.stderr:
        if text.startswith("watching"):
            break
    seconds = time.perf_counter() - started
    process.terminate()
    process.communicate()
    return seconds
