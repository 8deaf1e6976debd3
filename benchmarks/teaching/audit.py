"""`python -m benchmarks.teaching.audit`: what the audit costs a line, and whether its chains outlive random kills."""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final
from unittest import mock

from sqlalchemy import text

from benchmarks import provenance
from benchmarks.robustness.postgres import NoServer, new_database, private_server
from benchmarks.robustness.small_model import fit_small, good_parts
from energyad.data.demo import render_demo
from energyad.detector import AnomalyDetector
from energyad.errors import ModelError
from energyad.feedback import versions
from energyad.feedback.importing import read_labels
from energyad.feedback.labels import Label, LabelStore
from energyad.feedback.teaching import teach
from energyad.line import audit
from energyad.line.database import Database
from energyad.line.incoming import FileState
from energyad.line.journal import FileSeen, JournalLine, Statistics
from energyad.line.store import LineStore, Scored
from energyad.model.folder import open_model
from energyad.model.manifest import Extension
from energyad.scoring.results import ModelReference

RESULTS: Final = Path(__file__).with_name("audit.jsonl")
TOGETHER: Final = 16
"""Results in one transaction, as a watcher stores them."""
LONGEST: Final = 1.0
"""Seconds after which a process is killed, at the latest."""
NUM_STEPS: Final = 4
"""Label, teach, store the candidate, promote."""
FORK: Final = multiprocessing.get_context("fork")
MODEL: Final = ModelReference(name="m", sha256="0" * 64, calibrated=None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and append rows. Returns the exit status: 1 where a chain did not fit."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.teaching.audit", description=__doc__)
    p.add_argument("--results", type=int, default=16_000, metavar="N", help="stored for the cost")
    p.add_argument("--kills", type=int, default=100, metavar="N")
    p.add_argument(
        "--what", nargs="+", choices=("cost", "kills", "lessons"), default=["cost", "kills", "lessons"]
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--rows", type=Path, default=RESULTS)
    options = p.parse_args(arguments)
    is_clean = True
    with tempfile.TemporaryDirectory() as folder:
        measure: dict[str, Callable[[Path, str | None], dict[str, Any]]] = {
            "cost": lambda place, server: cost(place, server, options.results),
            "kills": lambda place, server: kills(place, server, options.kills, seed=options.seed),
            "lessons": lambda place, server: lessons(place, server, options.kills, seed=options.seed),
        }
        for kind, server in _servers():
            for what in options.what:
                row = measure[what](Path(folder), server)
                values = {"what": what, "database": kind, **row}
                stamp = provenance.stamp(threads=1, packages=("energyad", "sqlalchemy"))
                provenance.append_row(options.rows, values | vars(stamp))
                print(values, flush=True)
                is_clean = is_clean and not row.get("faults")
    return 0 if is_clean else 1


def cost(folder: Path, server: str | None, count: int) -> dict[str, Any]:
    """Store results with and without their entries in the audit, and check the chain.

    Args:
        folder: For databases in files.
        server: Of PostgreSQL; None for SQLite.
        count: Results.
    """
    seconds: dict[bool, float] = {}
    for with_audit in (False, True):
        place = _place(folder, server)
        without = mock.patch.object(audit, "record", lambda *_: None)
        with contextlib.nullcontext() if with_audit else without, Database(place) as database:
            store = LineStore(database, out=folder / "results.jsonl", folder=folder, station="one")
            started = time.perf_counter()
            for first in range(0, count, TOGETHER):
                store_results(store, f"{with_audit}-{first}")
            seconds[with_audit] = time.perf_counter() - started
    with Database(place) as database, database.snapshot() as session:
        started = time.perf_counter()
        checked = audit.check(session)
        check_seconds = time.perf_counter() - started
    return {
        "results": count,
        "results_a_second_without": round(count / seconds[False], 1),
        "results_a_second_with": round(count / seconds[True], 1),
        "check_seconds": round(check_seconds, 2),
        "faults": int(checked.fault is not None),
    }


def kills(folder: Path, server: str | None, count: int, *, seed: int) -> dict[str, Any]:
    """Kill a process that stores verdicts and labels and changes its model, and audit after each kill.

    Args:
        folder: For all files.
        server: Of PostgreSQL; None for SQLite.
        count: SIGKILLs.
        seed: Of the moments.
    """
    database, model = _new_line(folder, server)
    generator = random.Random(seed)

    def live(number: int) -> BaseProcess:
        process = FORK.Process(target=_live, args=(database, folder, model, number))
        process.start()
        time.sleep(generator.uniform(0.0, LONGEST))
        return process

    return _kill(database, model, count, live)


def lessons(folder: Path, server: str | None, count: int, *, seed: int) -> dict[str, Any]:
    """Kill a process that labels, teaches and promotes, at a random moment of a random step, and audit after each kill.

    At last a label and a line of the history are changed, which the audit must find.

    Args:
        folder: For all files.
        server: Of PostgreSQL; None for SQLite.
        count: SIGKILLs.
        seed: Of the steps and moments.
    """
    database, model = _new_line(folder, server)
    shown = render_demo(folder / "lessons", seed=1, train=4, good=2, per_flaw=1, size=64)
    labels = [label.by("a") for label in read_labels(shown.root)]
    good = [*good_parts(folder / "images"), *shown.train_good]
    seconds = _step_seconds(_learn(database, model, labels, good))
    generator = random.Random(seed)
    steps = collections.Counter[str]()

    def live(_: int) -> BaseProcess:
        step = generator.choice(list(seconds))
        steps[step] += 1
        receiver, sender = FORK.Pipe(duplex=False)
        process = FORK.Process(target=_report, args=(_learn(database, model, labels, good), sender))
        process.start()
        while receiver.recv() != step:
            pass
        time.sleep(generator.uniform(0.0, seconds[step]))
        return process

    row = _kill(database, model, count, live)
    return row | {
        "kills_in": dict(sorted(steps.items())),
        "round_seconds": round(sum(seconds.values()), 2),
        "changes_found": _changes_found(database, model),
    }


def _new_line(folder: Path, server: str | None) -> tuple[str | Path, Path]:
    """A database, and a model in a folder of its own."""
    place, model = _place(folder, server), Path(tempfile.mkdtemp(dir=folder)) / "model"
    detector = fit_small(good_parts(folder / "images"))
    versions.save(model, detector.manifest, detector.contents, action="fitted")
    with Database(place):
        pass
    return place, model


def _kill(place: str | Path, model: Path, count: int, live: Callable[[int], BaseProcess]) -> dict[str, Any]:
    """Kill each process that `live` returns, and audit after each kill."""
    faults, entries, lines = 0, 0, 0
    for number in range(count):
        process = live(number)
        process.kill()
        process.join()
        with Database(place) as database, database.snapshot() as session:
            of_line = audit.check(session)
        of_model = versions.check(model)
        for fault in (of_line.fault, of_model.fault, _fault_of_candidate(model)):
            if fault is not None:
                print(fault, file=sys.stderr)
                faults += 1
        entries, lines = of_line.entries, of_model.entries
    return {"kills": count, "faults": faults, "entries": entries, "lines_of_the_history": lines}


def _fault_of_candidate(model: Path) -> str | None:
    """What is wrong with the candidate beside a model; None without one, too."""
    candidate = versions.candidate_of(model)
    try:
        if candidate.exists():
            open_model(candidate)
    except ModelError as error:
        return str(error)
    return None


def _learn(place: str | Path, model: Path, labels: Sequence[Label], good: Sequence[Path]) -> Generator[str]:
    """Label, teach and promote as the commands do, again and again; yields the name of each step before its work."""
    with Database(place) as database:
        store = LabelStore(database)
        while True:
            yield "label"
            store.add(labels)
            store.withdraw(labels[0].sha256, labels[0].reviewer)  # so that the next round has something new
            yield "teach"
            taught = teach(AnomalyDetector.load(model, threads=1), store.current(), good, threads=1)
            yield "candidate"
            versions.put_candidate(model, taught.manifest, taught.contents, action="taught")
            yield "promote"
            versions.promote(model, force=True)


def _step_seconds(steps: Generator[str]) -> dict[str, float]:
    """How long each step of a second round takes: the first imports what the others have."""
    seconds: dict[str, float] = {}
    with contextlib.closing(steps):
        started = time.perf_counter()
        for step, _ in itertools.islice(itertools.pairwise(steps), 2 * NUM_STEPS):
            now = time.perf_counter()
            seconds[step], started = now - started, now
    return seconds


def _report(steps: Iterator[str], sender: Connection) -> None:
    """Say which step begins, until somebody ends this."""
    for step in steps:
        sender.send(step)


def _changes_found(place: str | Path, model: Path) -> bool:
    """Change a label and a line of the history behind their backs: whether both are found."""
    with Database(place) as database:
        with database.write() as session:
            session.execute(text("UPDATE labels SET reviewer = 'b' WHERE id = 1"))
        with database.snapshot() as session:
            of_line = audit.check(session)
    history = versions.versions_of(model) / versions.HISTORY
    history.write_bytes(history.read_bytes().replace(b"promoted", b"taught", 1))
    return of_line.fault is not None and versions.check(model).fault is not None


def store_results(store: LineStore, name: str) -> None:
    """Store as many results as one transaction has."""
    states = [
        (f"{name}-{number}.png", FileState(1, number, f"{number:064}", name)) for number in range(TOGETHER)
    ]
    claims = store.claim_in_place(states)
    store.record(
        [
            Scored(claim, state, _line(path, state))
            for claim, (path, state) in zip(claims, states, strict=True)
        ]
    )


def _live(place: str | Path, folder: Path, model: Path, number: int) -> None:
    """Store and change, until somebody ends this."""
    manifest, contents = open_model(model)
    with Database(place) as database:
        store = LineStore(database, out=folder / "results.jsonl", folder=folder, station="one")
        for step in range(1000):
            store_results(store, f"{number}-{step}")
            name = f"{number}-{step}"
            LabelStore(database).add([Label(image=Path(name), sha256=name, value="fine", reviewer="a")])
            if step % 5 == 4:
                extension = Extension(created=name, num_images=1, data_sha256="", bank_points=())
                new = manifest.replace(extensions=(extension,))
                versions.put_candidate(model, new, contents, action="extended")
                versions.promote(model)
                versions.rollback(model)


def _line(path: str, state: FileState) -> JournalLine:
    seen = FileSeen(path=path, size=state.size, mtime_ns=state.mtime_ns, sha256=state.sha256)
    return JournalLine(
        image=path,
        model=MODEL,
        verdict="ok",
        score=0.5,
        p_value=0.5,
        threshold=1.0,
        review_threshold=None,
        width=1,
        height=1,
        regions=[],
        heatmap=None,
        time="2026-01-01T00:00:00",
        file=seen,
        statistics=Statistics(brightness=0.5, contrast=0.5, sharpness=0.5, heatmap_mean=0.5),
    )


def _servers() -> Iterator[tuple[str, str | None]]:
    yield "SQLite", None
    with contextlib.suppress(NoServer), private_server() as server:
        yield "PostgreSQL", server


def _place(folder: Path, server: str | None) -> str | Path:
    if server is not None:
        return new_database(server)
    return Path(tempfile.mkdtemp(dir=folder)) / "energyad.db"


if __name__ == "__main__":
    sys.exit(main())
