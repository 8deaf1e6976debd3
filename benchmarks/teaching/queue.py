"""`python -m benchmarks.teaching.queue`: how long a reviewer waits for the queue and for a label, on a long line."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import insert, text

from benchmarks import provenance
from benchmarks.robustness.postgres import NoServer, new_database, private_server
from energyad.feedback.queue import ReviewQueue
from energyad.line.database import Database
from energyad.line.tables import KEPT, Arrival, ImageLabel, Result, Source, Stream, WatcherProcess

RESULTS: Final = Path(__file__).with_name("queue.jsonl")
NG_EVERY: Final = 50
LINE: Final = '{"regions": []}' + " " * 1000
"""About as long as a result with a region."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both kinds of database, and append a row of each. Returns the exit status."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.teaching.queue", description=__doc__)
    p.add_argument("--results", type=int, default=100_000, metavar="N", help="on the line")
    p.add_argument("--rows", type=Path, default=RESULTS)
    options = p.parse_args(arguments)
    for kind, url in _databases():
        row = {"database": kind, **measure(url, options.results)}
        stamp = provenance.stamp(threads=1, packages=("energyad", "sqlalchemy"))
        provenance.append_row(options.rows, row | vars(stamp))
        print(row, flush=True)
    return 0


def measure(url: str | Path, count: int) -> dict[str, Any]:
    """Measure one database.

    Args:
        url: Of an empty database, or its file.
        count: Results that it is filled with.
    """
    with Database(url) as database:
        digests = fill(database, count)
        with database.write() as session:
            session.execute(text("ANALYZE"))  # as a server does by itself in time
        queue = ReviewQueue(database)
        first = _milliseconds(partial(queue.waiting, "anna", limit=40))
        items = queue.waiting("anna", limit=200)
        labels = [_milliseconds(partial(label, queue, item.id), times=1) for item in items[:50]]
        label_all(database, digests, {item.sha256 for item in items[:50]})
        last = _milliseconds(partial(queue.waiting, "anna", limit=40))
    return {
        "results": count,
        "queue_ms": round(first, 1),
        "queue_when_all_is_labelled_ms": round(last, 1),
        "label_ms": round(sorted(labels)[len(labels) // 2], 1),
        "label_ms_slowest": round(max(labels), 1),
    }


def fill(database: Database, count: int) -> list[str]:
    """Store results, one in `NG_EVERY` of them ng. Returns the hashes of their images."""
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    now = datetime.datetime.now(datetime.UTC)
    with database.write() as session:
        session.add(Stream(id=1, station="one", path="results.jsonl"))
        session.add(WatcherProcess(id="w", place="", process=1, started="", heartbeat=0.0, ended=True))
        session.flush()
        session.add(Source(id=1, stream_id=1, folder="/line"))
        session.flush()
        arrivals = [
            {"id": number, "source_id": 1, "path": f"{number}.png", "size": 1, "mtime_ns": number, "sha256": digest,
             "state": KEPT, "watcher_id": "w", "attempts": 1}
            for number, digest in enumerate(digests, start=1)
        ]  # fmt: skip
        session.execute(insert(Arrival), arrivals)
        results = [
            {"id": number, "stream_id": 1, "number": number, "arrival_id": number, "scored_at": now, "model_name": "m",
             "model_sha256": "0", "verdict": "ng" if number % NG_EVERY == 0 else "ok", "score": 0.5,
             "quarantined": False, "line": LINE}
            for number in range(1, count + 1)
        ]  # fmt: skip
        session.execute(insert(Result), results)
    return digests


def label(queue: ReviewQueue, result_id: int) -> None:
    """Store one label."""
    queue.label(queue.item(result_id), reviewer="anna", value="fine", kind=None, marks=())


def label_all(database: Database, digests: list[str], done: set[str]) -> None:
    """Label all images that deserve a look, and that are not yet."""
    values = {
        "reviewer": "anna", "revision": 0, "label": "fine", "marks": "[]", "image": "", "sampling": "alarm",
        "labelled_at": datetime.datetime.now(datetime.UTC),
    }  # fmt: skip
    wanted = {
        digest
        for number, digest in enumerate(digests, start=1)
        if (number % NG_EVERY == 0 or digest < "0d") and digest not in done
    }
    with database.write() as session:
        session.execute(insert(ImageLabel), [{**values, "sha256": digest} for digest in sorted(wanted)])


def _databases() -> Iterator[tuple[str, str | Path]]:
    with tempfile.TemporaryDirectory() as folder:
        yield "SQLite", Path(folder) / "energyad.db"
    with contextlib.suppress(NoServer), private_server() as server:
        yield "PostgreSQL", new_database(server)


def _milliseconds(work: Callable[[], object], *, times: int = 5) -> float:
    """The median of several runs."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - started))
    return sorted(taken)[len(taken) // 2]


if __name__ == "__main__":
    sys.exit(main())
