"""How long a watcher takes to start where its database holds many results."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select, text

from benchmarks.robustness.watching import SIZE, score_files
from energyad.line.database import Database
from energyad.line.journal import read_journal
from energyad.line.results_file import ResultsFile
from energyad.line.store import LineStore
from energyad.line.tables import KEPT, Source, Stream
from energyad.line.watch import Watcher

PRESENT: Final = 1_000
"""Files with a result that still lie in the folder."""
REPEATS: Final = 5


@dataclass(frozen=True, kw_only=True)
class StartTimes:
    """Of one number of results. Seconds are medians of `REPEATS` starts.

    ready_seconds: from opening the database until the folder was looked at, which holds 1,000 scored files.
    ready_cpu_seconds: of the processor, which other programs on the machine do not lengthen.
    program_seconds: of `energyad watch`, from its start until it says that it watches; with a model, else None.
    import_cpu_seconds, load_cpu_seconds: of the processor, for that program's imports, Python's own start among them,
        and for loading the model and scoring one image; with a model, else None.
    memory_mib: most memory of the process that measured, the making of the results included.
    """

    results: int
    present: int
    database_mib: int
    results_file_mib: int
    ready_seconds: float
    ready_worst_seconds: float
    ready_cpu_seconds: float
    program_seconds: float | None
    import_cpu_seconds: float | None
    load_cpu_seconds: float | None
    memory_mib: int


def measure_start(results: int, *, model: Path | None = None) -> StartTimes:
    """Make a database of so many results and a folder, and start watchers on them."""
    with tempfile.TemporaryDirectory(prefix="energyad-start-") as name:
        root = Path(name)
        _make(root, results)
        ready = [_ready_seconds(root) for _ in range(REPEATS)]
        program = imports = load = None
        if model is not None:
            program = round(statistics.median(_program_seconds(root, model) for _ in range(REPEATS)), 2)
            parts = [_parts_of_program(model) for _ in range(REPEATS)]
            imports, load = (round(statistics.median(part), 3) for part in zip(*parts, strict=True))
        return StartTimes(
            results=results,
            present=PRESENT,
            database_mib=(root / "energyad.db").stat().st_size >> 20,
            results_file_mib=(root / "results.jsonl").stat().st_size >> 20,
            ready_seconds=round(statistics.median(seconds for seconds, _ in ready), 3),
            ready_worst_seconds=round(max(seconds for seconds, _ in ready), 3),
            ready_cpu_seconds=round(statistics.median(cpu for _, cpu in ready), 3),
            program_seconds=program,
            import_cpu_seconds=imports,
            load_cpu_seconds=load,
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
        if results > PRESENT:
            _add(database, store, line, PRESENT, results)
        with ResultsFile(database, store.stream_id, store.out):
            pass
        store.end()


def _watch(store: LineStore, folder: Path, *, rounds: int = 1) -> None:
    watcher = Watcher(folder, store, score_files, settle=0.0)
    for _ in range(rounds):
        for _line in watcher.look(threading.Event()):
            pass


def _add(database: Database, store: LineStore, line: str, first: int, end: int) -> None:
    """Results of files that are gone by now."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :end)"
    values = {"first": first, "end": end, "line": line, "watcher": store.watcher_id, "size": SIZE}
    with database.write() as session:
        source = session.scalars(select(Source.id)).one()
        values |= {"source": source, "stream": store.stream_id, "state": KEPT}
        session.execute(
            text(
                "INSERT INTO arrivals (id, source_id, path, size, mtime_ns, sha256, fingerprint, state, watcher_id, "
                f"attempts) {numbers} SELECT i + 1, :source, printf('%07d.png', i), :size, i, "
                "lower(hex(randomblob(32))), '1:' || i || ':400:0:0', :state, :watcher, 1 FROM n"
            ),
            values,
        )
        session.execute(
            text(
                "INSERT INTO results (id, stream_id, number, arrival_id, scored_at, model_name, model_sha256, verdict, "
                f"score, quarantined, line) {numbers} SELECT i + 1, :stream, i + 1, i + 1, '2026-01-01 00:00:00', "
                "'stub', '0', 'ok', i % 251, 0, replace(:line, '0000000.png', printf('%07d.png', i)) FROM n"
            ),
            values,
        )
        session.get_one(Stream, store.stream_id).last_number = end


def _ready_seconds(root: Path) -> tuple[float, float]:
    started, cpu = time.perf_counter(), time.process_time()
    with Database(root / "energyad.db") as database:
        store = LineStore(database, out=root / "results.jsonl", folder=root / "incoming")
        store.latest_parts("0", window=200)
        with ResultsFile(database, store.stream_id, store.out):
            _watch(store, root / "incoming", rounds=2)
            seconds = time.perf_counter() - started, time.process_time() - cpu
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
    for message in process.stderr:
        if message.startswith("watching"):
            break
    seconds = time.perf_counter() - started
    process.terminate()
    process.communicate()
    return seconds


_PARTS: Final = """
import sys, time
import energyad.cli.watch
from energyad.detector import AnomalyDetector
from energyad.line import database, reloading, results_file, store, watch, webhook
imported = time.process_time()
AnomalyDetector.load(sys.argv[1], threads=1).check()
print(imported, time.process_time() - imported)
"""


def _parts_of_program(model: Path) -> tuple[float, float]:
    """Processor seconds of a fresh process: of its imports, and of the model's load."""
    command = [sys.executable, "-c", _PARTS, str(model)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    imports, load = map(float, outcome.stdout.split())
    return imports, load
