"""`python -m benchmarks.teaching.audit`: what the audit costs a line, and whether its chains outlive random kills."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
    place, model = _new_line(folder, server)
    return _kill(place, model, count, lambda number: _live(place, folder, model, number), LONGEST, seed=seed)


def lessons(folder: Path, server: str | None, count: int, *, seed: int) -> dict[str, Any]:
    """Kill a process that labels, teaches and promotes, at a moment of one such round, and audit after each kill.

    At last a label and a line of the history are changed, which the audit must find.

    Args:
        folder: For all files.
        server: Of PostgreSQL; None for SQLite.
        count: SIGKILLs.
        seed: Of the moments.
    """
    place, model = _new_line(folder, server)
    shown = render_demo(folder / "lessons", seed=1, train=4, good=2, per_flaw=1, size=64)
    labels = [label.by("a") for label in read_labels(shown.root)]
    good = [*good_parts(folder / "images"), *shown.train_good]
    _learn(place, model, labels, good)
    started = time.perf_counter()
    _learn(place, model, labels, good)
    round_seconds = time.perf_counter() - started
    row = _kill(
        place,
        model,
        count,
        lambda _: _learn(place, model, labels, good, rounds=100),
        round_seconds,
        seed=seed,
    )
    return row | {"round_seconds": round(round_seconds, 2), "changes_found": _changes_found(place, model)}


def _new_line(folder: Path, server: str | None) -> tuple[str | Path, Path]:
    """A database, and a model in a folder of its own."""
    place, model = _place(folder, server), Path(tempfile.mkdtemp(dir=folder)) / "model"
    detector = fit_small(good_parts(folder / "images"))
    versions.save(model, detector.manifest, detector.contents, action="fitted")
    with Database(place):
        pass
    return place, model


def _kill(
    place: str | Path, model: Path, count: int, work: Callable[[int], None], longest: float, *, seed: int
) -> dict[str, Any]:
    """Run the work in processes that are killed, each within `longest` seconds, and audit after each kill."""
    generator, faults, entries, lines = random.Random(seed), 0, 0, 0
    context = multiprocessing.get_context("fork")
    for number in range(count):
        life = context.Process(target=work, args=(number,))
        life.start()
        time.sleep(generator.uniform(0.0, longest))
        life.kill()
        life.join()
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


def _learn(
    place: str | Path, model: Path, labels: Sequence[Label], good: Sequence[Path], *, rounds: int = 1
) -> None:
    """Label, teach and promote as the commands do, and withdraw a label, so that each round has something new."""
    with Database(place) as database:
        store = LabelStore(database)
        for _ in range(rounds):
            store.add(labels)
            taught = teach(AnomalyDetector.load(model, threads=1), store.current(), good, threads=1)
            versions.put_candidate(model, taught.manifest, taught.contents, action="taught")
            versions.promote(model, force=True)
            store.withdraw(labels[0].sha256, labels[0].reviewer)


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
