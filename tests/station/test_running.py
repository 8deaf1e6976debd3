"""Laws of a station: one verdict a part, in order, in the database before anybody is told; late parts are said."""

from __future__ import annotations

import json
import time
import urllib.request

import jsonschema
import pytest
from sqlalchemy import select, update

from benchmarks.station.machines import free_port
from energyad.errors import DataError
from energyad.feedback.queue import ReviewQueue
from energyad.line import audit
from energyad.line.database import Database
from energyad.line.tables import AuditEntry, Part, PartView
from energyad.station import running
from energyad.station.results import json_schema
from energyad.station.triggers import Clock
from tests import ROOT

from .conftest import Rig, until

SCHEMA = ROOT / "docs" / "schema" / "part.schema.json"


def test_each_image_of_one_view_is_a_part_with_the_verdict_of_its_image(rig: Rig) -> None:
    with rig.running():
        for number, score in enumerate(("0.5", "1.5", "3", "broken")):
            rig.put(f"{number}", score)
            rig.await_parts(number + 1)
    parts = rig.parts()
    assert [(part.number, part.part, part.verdict) for part in parts] == [
        (1, "0", "ok"), (2, "1", "review"), (3, "2", "ng"), (4, "3", "review"),
    ]  # fmt: skip
    assert [part.p_value for part in parts[1:]] == [0.01, 0.01, None]
    assert parts[3].reason is not None and "damaged" in parts[3].reason
    assert all(part.latency is not None and part.latency >= 0 for part in parts)
    assert [part.views[0].result.score for part in parts] == [0.5, 1.5, 3.0, None]


def test_what_was_there_before_the_start_has_no_latency_and_misses_no_budget(rig: Rig) -> None:
    rig.settings = {"latency": {"budget": 1e-9, "missed": "ng"}}
    rig.clock = Clock(wall=lambda: time.time() + 1.0)  # the station starts a second after the file came
    rig.put("early")
    rig.run_once()
    (part,) = rig.parts()
    assert (part.verdict, part.latency, part.triggered) == ("ok", None, None)


@pytest.mark.parametrize("missed", ["review", "ng"])
def test_a_part_over_the_budget_gets_the_verdict_of_the_file_and_never_a_milder_one(
    rig: Rig, missed: str
) -> None:
    rig.settings = {"latency": {"budget": 1e-9, "missed": missed}}
    with rig.running() as station:
        rig.put("good", "0.5")
        rig.await_parts(1)
        rig.put("bad", "3")
        good, bad = rig.await_parts(2)
        until(lambda: station.latency is not None and station.latency.parts == 2)
        reading = station.reading()
    assert (good.verdict, bad.verdict) == (missed, "ng")
    assert good.reason is not None and "budget" in good.reason
    assert reading.late == 2
    assert reading.latency is not None and reading.latency.worst >= reading.latency.p50 > 0


def test_an_image_that_the_station_put_there_itself_waits_for_no_look(rig: Rig) -> None:
    rig.interval = 1000.0
    with rig.running() as station:
        station.push("front", "pushed", b"0.5", suffix=".png")
        (part,) = rig.await_parts(1)
    assert (part.part, part.verdict) == ("pushed", "ok")


def test_a_clock_that_is_set_back_changes_no_latency_and_is_said_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.01)
    offsets = [0.0]
    rig.clock = Clock(wall=lambda: time.time() + offsets[0])
    with rig.running():
        rig.put("a")
        rig.await_parts(1)
        offsets[0] = -3600.0
        rig.put("b")
        rig.await_parts(2)
        until(lambda: len(rig.warned) == 1)
        offsets[0] = 3600.0
        rig.put("c")
        rig.await_parts(3)
        until(lambda: len(rig.warned) == 2)
    assert ["set back by 3600 s" in rig.warned[0], "set forward by 7200 s" in rig.warned[1]] == [True, True]
    assert [part.latency is not None and 0 <= part.latency < 60 for part in rig.parts()] == [True] * 3


def test_a_station_that_is_started_again_goes_on_counting(rig: Rig) -> None:
    for name in ("a", "b"):
        rig.put(name, "3")
        rig.run_once()
    with rig.running() as station:
        assert (station.status.total, station.status.rejected) == (2, 2)
    assert [part.number for part in rig.parts()] == [1, 2]


def test_views_of_a_part_join_by_name_and_the_worst_counts(rig: Rig) -> None:
    rig.views = ("top", "side")
    with rig.running():
        rig.put("a", "0.5", view="top")
        rig.put("b", "0.2", view="side")
        rig.put("b", "0.2", view="top")
        rig.put("a", "3", view="side")
        rig.await_parts(2)
    by_name = {part.part: part for part in rig.parts()}
    assert (by_name["a"].verdict, by_name["b"].verdict) == ("ng", "ok")
    assert [view.view for view in by_name["a"].views] == ["top", "side"]
    assert by_name["a"].p_value == pytest.approx(2 * 0.01)
    assert not by_name["a"].missing


def test_the_audit_has_an_entry_of_each_part_and_names_one_that_was_changed(rig: Rig) -> None:
    rig.views = ("top", "side")
    with rig.running():
        rig.put("a", "0.5", view="top")
        rig.put("a", "3", view="side")
        rig.await_parts(1)
        rig.put("b", "0.5", view="top")  # still open
    with Database(rig.root / "energyad.db") as database:
        with database.snapshot() as session:
            assert audit.check(session).fault is None
            actions = session.scalars(select(AuditEntry.action)).all()
        assert actions.count("part") == 1
        with database.write() as session:
            session.execute(update(Part).where(Part.number == 1).values(verdict="ok"))
        with database.snapshot() as session:
            fault = audit.check(session).fault
    assert fault is not None and "the part 1 was changed" in fault


def test_a_missing_view_is_said_after_the_deadline_and_an_image_that_comes_later_does_not_count(
    rig: Rig,
) -> None:
    rig.views, rig.settings = ("top", "side"), {"part": {"deadline": 0.05}}
    with rig.running():
        rig.put("a", view="top")
        (part,) = rig.await_parts(1)
        rig.put("a", "3", view="side")
        until(lambda: any("a: view side came after the deadline" in text for text in rig.warned))
        rig.put("a", view="top")
        rig.put("a", view="side")
        rig.await_parts(2)
    assert (part.verdict, part.missing, part.p_value) == ("review", ["side"], None)
    assert part.reason == "view side is missing"
    assert [part.verdict for part in rig.parts()] == ["review", "ok"]
    with Database(rig.root / "energyad.db") as database, database.read() as session:
        assert session.scalars(select(PartView.too_late).order_by(PartView.id)).all() == [
            False,
            True,
            False,
            False,
        ]


def test_a_part_that_waits_for_a_view_holds_up_the_next_so_that_order_is_kept(rig: Rig) -> None:
    rig.views, rig.settings = ("top", "side"), {"part": {"deadline": 3600.0}}
    with rig.running() as station:
        rig.put("first", view="top")
        until(lambda: len(station.book.waiting()) == 1)
        rig.put("second", view="top")
        rig.put("second", view="side")
        until(lambda: len(station.book.waiting()) == 2)
        assert rig.parts() == []
        rig.put("first", view="side")
        assert [part.part for part in rig.await_parts(2)] == ["first", "second"]


def test_open_parts_outlive_the_program(rig: Rig) -> None:
    rig.views, rig.settings = ("top", "side"), {"part": {"deadline": 3600.0}}
    with rig.running() as station:
        rig.put("a", view="top")
        until(lambda: len(station.book.waiting()) == 1)
    with rig.running():
        rig.put("a", view="side")
        (part,) = rig.await_parts(1)
    assert part.verdict == "ok" and len(part.views) == 2


def test_results_are_labelled_while_the_station_runs(rig: Rig) -> None:
    with rig.running(), Database(rig.root / "energyad.db", create=False) as other:
        queue = ReviewQueue(other)
        for name, score in (("a", "3"), ("b", "4")):
            rig.inspect(name, score)
            (item, *_) = queue.waiting("anna")
            queue.label(item, reviewer="anna", value="defect", kind="dent", marks=())
            assert queue.waiting("anna") == []
    assert [part.verdict for part in rig.parts()] == ["ng", "ng"]
    with Database(rig.root / "energyad.db") as database, database.snapshot() as session:
        assert audit.check(session).fault is None


def test_images_are_moved_by_verdict_and_only_the_share_of_ok_ones_is_kept(rig: Rig) -> None:
    rig.settings = {"images": {"folder": rig.root / "kept", "ok_share": 0.0}}
    rig.put("good", "0.5")
    rig.put("bad", "3")
    rig.run_once()
    assert [path.relative_to(rig.root).as_posix() for path in (rig.root / "kept").rglob("*.png")] == [
        "kept/ng/bad.png"
    ]
    assert not list((rig.root / "front").iterdir())


def test_an_error_of_a_view_ends_the_station_with_it(rig: Rig) -> None:
    with pytest.raises(DataError, match="front"), rig.running() as station:
        (rig.root / "front").rmdir()
        until(lambda: station.views[0].error is not None)


def test_metrics_say_verdicts_latency_and_deliveries(rig: Rig) -> None:
    port = free_port()
    rig.settings = {"metrics": {"port": port}, "archive": {"folder": rig.root / "archive"}}
    with rig.running():
        rig.put("a", "3")
        rig.await_parts(1)

        def text() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return answer.read().decode()

        until(lambda: 'energyad_deliveries{output="archive"' in text() and 'state="delivered"} 1' in text())
        lines = text().splitlines()
    assert 'energyad_parts_total{verdict="ng"} 1' in lines
    assert any(line.startswith('energyad_latency_seconds{quantile="0.99"}') for line in lines)


def test_the_heartbeat_stands_still_while_a_view_does_not_look(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "STALL_SECONDS", -1.0)
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.0)
    with rig.running() as station:
        before = station.status.heartbeat
        rig.put("a")
        rig.await_parts(1)
        assert station.status.heartbeat == before == 1


def test_what_is_told_keeps_to_the_published_schema(rig: Rig) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema == json_schema(), "python -m energyad.station.results > docs/schema/part.schema.json"
    rig.views = ("top", "side")
    rig.put("a", "3", view="top")
    rig.put("a", "broken", view="side")
    rig.put("b", view="top")
    rig.run_once()
    parts = rig.parts()
    assert [(part.verdict, part.missing) for part in parts] == [("ng", []), ("review", ["side"])]
    for part in parts:
        jsonschema.Draft202012Validator(schema).validate(json.loads(part.json_line()))
        assert "\n" not in part.json_line()
