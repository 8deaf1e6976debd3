"""Laws of the audit: an entry for each row in one chain, whoever writes; what was changed afterwards is found."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import delete, event, insert, select, text, update

from energyad.feedback.labels import Label, LabelStore
from energyad.line import audit
from energyad.line import database as module
from energyad.line.chain import ChainCheck
from energyad.line.database import Database
from energyad.line.tables import Arrival, AuditEntry, Delivery, ImageLabel, Result, Stream

from .conftest import Line, look, renamed

PARTS = 5


def label(name: str, reviewer: str = "anna", **values: object) -> Label:
    return Label(image=Path(name), sha256=name, value="fine", reviewer=reviewer, **values)  # type: ignore[arg-type]


def checked(place: str | Path, heads: frozenset[str] = frozenset()) -> ChainCheck:
    with Database(place) as database, database.snapshot() as session:
        return audit.check(session, heads=heads)


@pytest.fixture
def audited(any_line: Line) -> Line:
    """A line with verdicts and labels."""
    for number in range(PARTS):
        renamed(any_line.folder / f"{number}.png", str(number))
    store = any_line.store()
    assert len(look(any_line.watcher(store=store))) == PARTS
    labels = LabelStore(store.database)
    labels.add([label("a"), label("b")])
    labels.withdraw("a", "anna")
    return any_line


@pytest.mark.slow
def test_each_verdict_and_each_label_has_an_entry_that_follows_the_one_before(audited: Line) -> None:
    found = checked(audited.place)
    assert (found.entries, found.fault) == (PARTS + 3, None)
    with Database(audited.place) as database, database.read() as session:
        entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
        assert [entry.action for entry in entries] == ["verdict"] * PARTS + ["label"] * 3
        assert [entry.previous for entry in entries[1:]] == [entry.entry_sha256 for entry in entries[:-1]]
        assert found.head == entries[-1].entry_sha256


THIRD = update(Result).where(Result.number == 3)
ENTRY = update(AuditEntry)
CHANGES = {
    "verdict": (THIRD.values(verdict="ok"), "verdict 3 was changed"),
    "score": (THIRD.values(score=0.1), "verdict 3 was changed"),
    "image": (update(Arrival).where(Arrival.id == 3).values(sha256="0"), "verdict 3 was changed"),
    "label": (update(ImageLabel).where(ImageLabel.id == 2).values(label="defect"), "label 2 was changed"),
    "removed label": (delete(ImageLabel).where(ImageLabel.id == 3), "the label 3 was removed"),
    "entry": (ENTRY.where(AuditEntry.id == 4).values(recorded_at="then"), "entry 4 .* was changed"),
    "last entry": (ENTRY.where(AuditEntry.id == 8).values(row_sha256="0"), "entry 8 .* was changed"),
    "removed entry": (delete(AuditEntry).where(AuditEntry.id == 2), "entry 3 .* does not follow"),
    "removed last entry": (delete(AuditEntry).where(AuditEntry.id == 8), "label 3 has no entry"),
}
"""What another program may do, and what is said of it."""


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_afterwards_is_named(audited: Line, change: str) -> None:
    statement, message = CHANGES[change]
    with Database(audited.place) as database, database.write() as session:
        session.execute(statement)
    fault = checked(audited.place).fault
    assert fault is not None and re.search(message, fault), fault


def test_a_removed_verdict_is_named_also_where_its_entry_went_with_it(audited: Line) -> None:
    with Database(audited.place) as database, database.write() as session:
        session.execute(delete(ImageLabel))
        session.execute(delete(AuditEntry).where(AuditEntry.action == "label"))
        session.execute(delete(AuditEntry).where(AuditEntry.row_id == PARTS))
        session.execute(delete(Delivery))
        session.execute(delete(Result).where(Result.id == PARTS))
    assert (
        checked(audited.place).fault
        == f"{audited.out}: {PARTS} verdicts were numbered, and {PARTS - 1} are stored"
    )


def test_an_inserted_verdict_has_no_entry(audited: Line) -> None:
    with Database(audited.place) as database, database.write() as session:
        first = session.execute(select(Result.__table__).order_by(Result.id)).mappings().first()
        assert first is not None
        arrival = (
            session.execute(select(Arrival.__table__).where(Arrival.id == first["arrival_id"]))
            .mappings()
            .one()
        )
        session.execute(insert(Arrival).values({**arrival, "id": 99, "path": "z.png"}))
        session.execute(insert(Result).values({**first, "id": 99, "number": 99, "arrival_id": 99}))
        session.execute(update(Stream).values(last_number=PARTS + 1))
    assert checked(audited.place).fault == "verdict 99 has no entry: it was inserted by another program"


def test_a_head_that_was_kept_tells_a_chain_that_was_written_anew(audited: Line) -> None:
    head = checked(audited.place).head
    assert checked(audited.place, frozenset({head})).known_heads == {head}
    with Database(audited.place) as database, database.write() as session:
        session.execute(update(Result).values(verdict="ok"))
        session.execute(delete(AuditEntry))
        audit.record_all(session.connection())
    anew = checked(audited.place, frozenset({head}))
    assert (anew.fault, anew.known_heads) == (None, frozenset())


def test_writers_at_once_make_one_chain(place: str | Path) -> None:
    def work(reviewer: str) -> None:
        with Database(place) as database:
            for number in range(10):
                LabelStore(database).add([label(f"{reviewer}{number}", reviewer)])

    with Database(place):
        threads = [threading.Thread(target=work, args=(who,)) for who in ("anna", "bert", "cleo")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = checked(place)
    assert (found.entries, found.fault) == (30, None)


def test_a_transaction_that_fails_leaves_no_entry(place: str | Path) -> None:
    with Database(place) as database:
        with pytest.raises(ZeroDivisionError), database.write() as session:
            audit.record(session, "label", [(1, "digest")])
            raise ZeroDivisionError
        LabelStore(database).add([label("a")])
    assert checked(place).entries == 1


def test_an_older_database_gets_entries_of_what_it_holds(audited: Line) -> None:
    with Database(audited.place) as database, database.write() as session:
        session.execute(text("DROP TABLE audit"))
        module._add_audit(session.connection())
    found = checked(audited.place)
    assert (found.entries, found.fault) == (PARTS + 3, None)


def test_a_result_costs_two_statements_more_however_many_are_stored_together(line: Line) -> None:
    statements: list[str] = []
    store = line.store()
    event.listen(
        store.database._engine,
        "before_cursor_execute",
        lambda *arguments: statements.append(arguments[2]),
    )
    for number in range(PARTS):
        renamed(line.folder / f"{number}.png", str(number))
    look(line.watcher(store=store))
    assert len([statement for statement in statements if "audit" in statement]) == 2


KILLED = """
import sys
from pathlib import Path
from energyad.feedback.labels import Label, LabelStore
from energyad.line.database import Database
with Database(sys.argv[1]) as database:
    print("ready", flush=True)
    for number in range(10**6):
        name = f"{sys.argv[2]}-{number}"
        LabelStore(database).add([Label(image=Path(name), sha256=name, value="fine", reviewer="a")])
"""


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_a_chain_that_fits(place: str | Path) -> None:
    entries = 0
    for kill in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(place), str(kill)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 60
        while checked(place).entries == entries and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        found = checked(place)
        assert found.fault is None and found.entries > entries
        entries = found.entries
