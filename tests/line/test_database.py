"""Laws of the database: all or nothing, on both kinds; one version of the tables; errors of one line."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, inspect, select, text

from energyad.errors import DataError, SettingsError
from energyad.line import database as module
from energyad.line.database import Database
from energyad.line.deliveries import list_deliveries
from energyad.line.store import add_delivery
from energyad.line.tables import (
    Arrival,
    Base,
    Output,
    Part,
    Result,
    SchemaVersion,
    Source,
    Stream,
    WatcherProcess,
)
from energyad.line.watchers import Registration

from .conftest import Line, died, look, renamed, state


def test_what_raises_in_a_transaction_leaves_nothing(place: str | Path) -> None:
    with Database(place) as database:
        with pytest.raises(ZeroDivisionError), database.write() as session:
            session.add(Stream(station="a", path="b"))
            session.flush()
            raise ZeroDivisionError
        with database.read() as session:
            assert session.scalars(select(Stream)).all() == []


def test_tables_have_one_version_and_foreign_keys_hold(place: str | Path) -> None:
    for _ in range(2):
        with Database(place) as database, database.read() as session:
            assert session.scalars(select(SchemaVersion.version)).all() == [1 + len(module.MIGRATIONS)]
            assert set(Base.metadata.tables) <= set(inspect(session.connection()).get_table_names())
    insert = "INSERT INTO sources (stream_id, folder) VALUES (99, 'x')"
    with (
        Database(place) as database,
        pytest.raises(Exception, match=r"(?i)foreign key"),
        database.write() as session,
    ):
        session.execute(text(insert))


def test_an_older_database_is_migrated_once_and_a_newer_one_refused(
    place: str | Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(place) as database, database.write() as session:
        session.add(Stream(station="a", path="b"))
    made: list[str] = []

    def migrate(connection: Connection) -> None:
        connection.execute(text("ALTER TABLE streams ADD COLUMN colour VARCHAR(8)"))
        made.append("colour")

    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, migrate))
        for _ in range(2):
            with Database(place) as database, database.read() as session:
                assert session.execute(text("SELECT path, colour FROM streams")).all() == [("b", None)]
    assert made == ["colour"]
    with pytest.raises(DataError, match="newer energyad"):
        Database(place)


def test_two_processes_may_make_one_database_at_once(place: str | Path) -> None:
    errors: list[Exception] = []

    def open_it() -> None:
        try:
            with Database(place) as database:
                Registration(database)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Database(place) as database, database.read() as session:
        assert len(session.scalars(select(WatcherProcess)).all()) == 6


def test_what_is_no_database_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("no database, but a text that is longer than a header\n" * 100)
    with pytest.raises(DataError, match=r"notes\.db: no database, or a damaged one"):
        Database(tmp_path / "notes.db")
    with pytest.raises(DataError, match="no such database"):
        Database(tmp_path / "missing.db", create=False)
    with pytest.raises(SettingsError, match="not supported"):
        Database("mysql://a@b/c")
    with pytest.raises(SettingsError, match="not a URL"):
        Database("://")


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    with pytest.raises(DataError) as caught:
        Database("postgresql://line:secret@127.0.0.1:1/line")
    assert "127.0.0.1:1" in str(caught.value) and "secret" not in str(caught.value)


def test_a_commit_is_on_the_disk(line: Line) -> None:
    database = line.store().database
    with database.read() as session:
        connection = session.connection()
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_only_what_need_not_outlive_a_power_failure_is_not_waited_for(tmp_path: Path) -> None:
    with Database(tmp_path / "energyad.db") as database:
        waits = []
        for durable in (False, True, False):
            with database.write(durable=durable) as session:
                waits.append(session.connection().exec_driver_sql("PRAGMA synchronous").scalar())
    assert waits == [1, 2, 1]


def test_threads_that_write_at_once_wait_for_each_other_and_lose_nothing(place: str | Path) -> None:
    with Database(place) as database:
        with ThreadPoolExecutor(8) as pool:
            watchers = list(pool.map(lambda _: Registration(database).id, range(40)))
        with database.read() as session:
            assert set(session.scalars(select(WatcherProcess.id))) == set(watchers)


@pytest.mark.slow
def test_a_process_that_was_killed_is_known_as_dead_at_once(place: str | Path) -> None:
    code = (
        "import sys, os, signal\n"
        "from energyad.line.database import Database\n"
        "from energyad.line.watchers import Registration\n"
        "Registration(Database(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with Database(place) as database:
        living = Registration(database)
        subprocess.run([sys.executable, "-c", code, str(place)], check=False)
        other = Registration(database)
        other.mark_dead()
        with database.read() as session:
            ended = {row.id: row.ended for row in session.scalars(select(WatcherProcess))}
    assert len(ended) == 3 and not ended[living.id] and not ended[other.id] and sum(ended.values()) == 1


def test_a_result_is_stored_once_also_where_it_is_not_known_whether_it_was(any_line: Line) -> None:
    renamed(any_line.folder / "a.png", "x")
    store = any_line.store()
    watcher = any_line.watcher(store=store)
    recorded: list = []
    original = store.record

    def twice(results):
        recorded.extend(original(results))
        return original(results)

    store.record = twice  # type: ignore[method-assign]
    assert look(watcher) == ["a.png"]
    assert len(recorded) == len(any_line.rows()) == 1


def test_a_watcher_whose_files_were_taken_over_stores_nothing_of_them(any_line: Line) -> None:
    renamed(any_line.folder / "a.png", "x")
    paused = any_line.watcher()

    def taken_over(_: Path) -> None:
        any_line.stub.meanwhile = lambda _: None
        died(paused)  # as others see it
        assert look(any_line.watcher()) == ["a.png"]

    any_line.stub.meanwhile = taken_over
    assert look(paused) == []
    assert len(any_line.rows()) == 1


def test_no_query_of_a_watcher_reads_all_arrivals_or_results(line: Line) -> None:
    store = line.store()
    statements: list[tuple[str, object]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            statements.append((statement, parameters))

    event.listen(store.database._engine, "before_cursor_execute", note)
    watchers = [line.watcher(store=store), line.watcher(store=store, move_to=line.root / "sorted")]
    for number, watcher in enumerate(watchers):
        renamed(line.folder / f"{number}.png", "x")
        look(watcher)
    (line.folder / f".energyad-{'0' * 32}").write_text("x")
    look(watchers[0])
    store.latest_parts("0", window=20)
    event.remove(store.database._engine, "before_cursor_execute", note)
    assert len(statements) > 10
    with store.database.read() as session:
        connection = session.connection()
        for statement, parameters in statements:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            details = " ".join(row[3] for row in plan)
            assert not re.search("SCAN (arrivals|results|deliveries)", details), (statement, details)
            assert "claim IS NULL" not in statement or "(claim=?)" not in details, (statement, details)
            by_state = "arrival_state_of_source" in details
            assert not by_state or set(parameters) & {"claimed", "scored"}, statement  # few at any time


def test_stations_of_one_server_have_memories_of_their_own(any_line: Line) -> None:
    from energyad.line.store import LineStore

    database = any_line.store().database
    one, other = (
        LineStore(database, out=any_line.out, folder=any_line.folder, station=name) for name in ("1", "2")
    )
    assert len(one.claim_in_place([("a.png", state())])) == 1
    assert len(other.claim_in_place([("a.png", state())])) == 1
    assert one.claim_in_place([("a.png", state())])[0].attempts == 1


def test_neither_scoring_nor_reading_a_results_file_imports_the_database() -> None:
    code = (
        "import sys, energyad, energyad.cli, energyad.line.journal\n"
        "from energyad.detector import AnomalyDetector\n"
        "print('sqlalchemy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_deliveries_of_a_database_without_parts_keep_their_rows_and_take_parts(place: str | Path) -> None:
    before = module.MIGRATIONS.index(module._add_parts) + 1
    with Database(place) as database, database.write() as session:
        for table in ("part_views", "deliveries", "parts"):
            session.execute(text(f"DROP TABLE {table}"))
        session.execute(text("ALTER TABLE streams DROP COLUMN last_part_number"))
        session.execute(
            text(
                "CREATE TABLE deliveries (id INTEGER PRIMARY KEY, output_id BIGINT, number BIGINT, "
                "result_id BIGINT NOT NULL REFERENCES results (id), key VARCHAR(36), state VARCHAR(16), "
                "attempts INTEGER, "
                "first_tried TIMESTAMP, last_tried TIMESTAMP, last_error TEXT)"
            )
        )
        session.execute(text(f"UPDATE schema_version SET version = {before}"))
        session.execute(
            text(
                "INSERT INTO streams (id, station, path, last_number, written_number, written_bytes) "
                "VALUES (1, 'one', 'out', 1, 0, 0)"
            )
        )
        session.add(Source(id=1, stream_id=1, folder="in"))
        session.add(WatcherProcess(id="w", place="", process=1, started="", heartbeat=0.0))
        session.flush()
        session.add(Arrival(id=1, source_id=1, path="a", state="kept", watcher_id="w"))
        session.add(Output(id=1, stream_id=1, kind="webhook", address="x", last_number=1))
        session.add(
            Result(
                id=1, stream_id=1, number=1, arrival_id=1, scored_at=datetime.datetime.now(datetime.UTC),
                model_name="gasket", model_sha256="0", verdict="ok", score=1.0, quarantined=False, line="{}",
            )
        )  # fmt: skip
        session.flush()
        session.execute(
            text("INSERT INTO deliveries VALUES (7, 1, 1, 1, 'key', 'pending', 3, NULL, NULL, 'why')")
        )
    with Database(place) as database:
        (kept,) = list_deliveries(database, "pending")
        assert (kept.id, kept.key, kept.attempts, kept.reason, kept.image) == (7, "key", 3, "why", "a")
        with database.write() as session:
            session.add(Part(id=1, stream_id=1, name="part", number=1, verdict="ng", line="{}"))
            session.flush()
            add_delivery(session, session.get_one(Output, 1), part_id=1)
        assert [(row.image, row.verdict) for row in list_deliveries(database, "pending")][1:] == [
            ("part", "ng")
        ]
