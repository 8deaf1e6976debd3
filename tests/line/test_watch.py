"""Laws of watching: every complete file once, whatever ends the watcher; nothing half written or moved unasked."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError, DecoderEnded, ModelError
from energyad.images.isolated import IsolatedDecoder
from energyad.line.filing import private_path
from energyad.line.incoming import Look
from energyad.line.watch import MAX_ATTEMPTS, score_with
from energyad.scoring.results import scored_result

from .conftest import Line, died, look, renamed


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_file_is_taken_when_two_looks_agree_and_a_renamed_one_at_once(line: Line) -> None:
    watcher = line.watcher()
    renamed(line.folder / "whole.png", "x")
    growing = (line.folder / "growing.png").open("w")
    found = []
    for _ in range(3):
        growing.write("more ")
        growing.flush()
        found.append(look(watcher))
    growing.close()
    assert found == [["whole.png"], [], []]
    assert [look(watcher), look(watcher), look(watcher)] == [["growing.png"], [], []]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="leases are Linux's")
@pytest.mark.parametrize("moves", [False, True])
def test_a_file_is_not_taken_while_somebody_has_it_open_for_writing(line: Line, moves: bool) -> None:
    watcher = line.watcher(move_to=line.root / "sorted" if moves else None)
    paused = (line.folder / "paused.png").open("w")
    paused.write("half")
    paused.flush()
    assert [look(watcher) for _ in range(4)] == [[]] * 4
    paused.write(" and half")
    paused.close()
    assert [look(watcher) for _ in range(3)].count(["paused.png"]) == 1
    assert line.stub.given == ["half and half"]


def test_only_images_are_taken_in_subfolders_and_linked_ones_too_and_hidden_ones_never(line: Line) -> None:
    for name in ("a.png", "line 1/b.JPG", ".hidden.png", ".tmp/c.png", "notes.txt", "d.png.part"):
        renamed(line.folder / name, "x")
    renamed(line.root / "camera" / "e.png", "x")
    (line.folder / "linked").symlink_to(line.root / "camera")
    (line.folder / "up").symlink_to(line.folder)
    assert sorted(look(line.watcher())) == ["a.png", "line 1/b.JPG", "linked/e.png"]


def test_what_is_no_regular_file_is_passed_over_with_a_warning(line: Line) -> None:
    os.mkfifo(line.folder / "pipe.png")
    (line.folder / "endless.png").symlink_to("/dev/zero")
    renamed(line.folder / "part.png", "x")
    watcher = line.watcher()
    assert [look(watcher), look(watcher)] == [["part.png"], []]
    assert len(line.warnings) == 2
    assert all("no regular file" in warning for warning in line.warnings)


def test_a_file_larger_than_any_image_is_noted_and_not_read(line: Line) -> None:
    with (line.folder / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    watcher = line.watcher()
    assert [look(watcher), look(watcher)] == [[], ["huge.png"]]
    (row,) = line.rows()
    assert row.verdict is None and "--max-megapixels" in (row.error or "")


def test_another_content_of_the_same_name_size_and_time_is_another_part(any_line: Line) -> None:
    line = any_line
    renamed(line.folder / "part.png", "first")
    watcher = line.watcher()
    assert look(watcher) == ["part.png"]
    renamed(line.folder / "part.png", "other")
    assert look(watcher) == ["part.png"]
    assert look(line.watcher()) == []
    assert line.stub.given == ["first", "other"]


def test_a_file_that_only_its_owner_or_inode_changed_is_the_same_part(line: Line) -> None:
    path = renamed(line.folder / "part.png", "first")
    look(line.watcher())
    path.chmod(0o600)
    watcher = line.watcher()
    assert [look(watcher), look(watcher)] == [[], []]
    renamed(path, "first")
    assert look(line.watcher()) == []
    assert line.stub.given == ["first"]


def test_another_results_file_is_another_memory_and_a_link_to_it_is_not(line: Line) -> None:
    renamed(line.folder / "part.png", "x")
    look(line.watcher())
    line.written()
    (line.root / "elsewhere").mkdir()
    link = line.root / "elsewhere" / "link.jsonl"
    link.symlink_to(line.out)
    folder_link = line.root / "in too"
    folder_link.symlink_to(line.folder)
    assert look(line.watcher(out=link)) == []
    assert look(line.watcher(folder=folder_link)) == []
    assert look(line.watcher(out=line.root / "second.jsonl")) == ["part.png"]


def test_a_fault_is_noted_only_when_the_file_has_settled(line: Line) -> None:
    line.settle = 0.2
    now = time.time_ns()
    renamed(line.folder / "part.png", "broken", mtime_ns=now)  # it looks whole, so it is tried at once
    watcher = line.watcher()
    assert look(watcher) == look(watcher) == []
    time.sleep(0.25)
    assert look(watcher) == ["part.png"]
    (row,) = line.rows()
    assert (row.error, row.verdict, row.observation) == ("damaged", None, None)
    assert line.stub.given == ["broken"] * 2


@pytest.mark.parametrize("moves", [False, True])
def test_a_file_that_is_completed_after_a_fault_gives_one_result(line: Line, moves: bool) -> None:
    line.settle = 60.0
    renamed(line.folder / "part.png", "broken", mtime_ns=time.time_ns())
    watcher = line.watcher(move_to=line.root / "sorted" if moves else None)
    look(watcher)
    writer = next(path for path in line.folder.iterdir())  # also by a private name, which its writer had open
    writer.write_text("whole")
    assert [look(watcher) for _ in range(3)].count(["part.png"]) == 1
    assert [row.error for row in line.rows()] == [None]


@pytest.mark.parametrize("moves", [False, True])
def test_a_file_overwritten_while_it_is_scored_gives_a_result_of_each(line: Line, moves: bool) -> None:
    path = renamed(line.folder / "part.png", "one")
    watcher = line.watcher(move_to=line.root / "sorted" if moves else None)

    def overwrite(_: Path) -> None:
        line.stub.meanwhile = lambda _: None
        renamed(path, "two")

    line.stub.meanwhile = overwrite
    assert [look(watcher), look(watcher), look(watcher)] == [["part.png"], ["part.png"], []]
    assert line.stub.given == ["one", "two"]
    if moves:
        texts = [path.read_text() for path in (line.root / "sorted").rglob("*.png")]
        assert sorted(texts) == ["one", "two"]


def test_files_are_moved_by_verdict_only_where_asked_also_those_noted_before(any_line: Line) -> None:
    line, verdict = any_line, any_line.stub.prediction.verdict
    renamed(line.folder / "sub" / "part.png", "x")
    assert look(line.watcher()) == ["sub/part.png"]
    assert (line.folder / "sub" / "part.png").exists()
    done = line.folder / "done"  # inside the watched folder, and yet not watched
    watcher = line.watcher(move_to=done)
    assert look(watcher) == []
    assert (done / verdict / "sub" / "part.png").exists()
    renamed(line.folder / "sub" / "part.png", "another of that name")
    assert look(watcher) == ["sub/part.png"]
    assert len(list((done / verdict / "sub").iterdir())) == 2
    assert files_below(line.folder / "sub") == []


def test_of_a_link_the_content_is_filed(line: Line) -> None:
    verdict = line.stub.prediction.verdict
    target = renamed(line.root / "camera" / "shot.png", "x")
    (line.folder / "part.png").symlink_to("../camera/shot.png")
    watcher = line.watcher(move_to=line.root / "sorted")
    looks = [look(watcher), look(watcher)]
    assert sorted(looks) == [[], ["part.png"]]
    filed = line.root / "sorted" / verdict / "part.png"
    assert filed.read_text() == "x" and not filed.is_symlink()
    assert target.exists() and not list(line.folder.iterdir())


def test_two_watchers_share_a_folder_and_no_file_is_scored_twice(any_line: Line) -> None:
    line = any_line
    for number in range(40):
        renamed(line.folder / f"{number}.png", str(number))
    watchers = [line.watcher() for _ in range(2)]
    works = [watcher.look(threading.Event()) for watcher in watchers]
    first = [next(work) for work in works]  # both have claimed some
    rest = [row for work in works for row in work]
    names = [row.file.path for row in (*first, *rest) if row.file is not None]
    assert sorted(names) == sorted(f"{number}.png" for number in range(40))
    assert len(line.stub.given) == len(line.rows()) == 40


@pytest.mark.parametrize("moves", [False, True])
def test_what_a_dead_watcher_had_claimed_is_scored_by_the_next(any_line: Line, moves: bool) -> None:
    line = any_line
    move_to = line.root / "sorted" if moves else None
    for number in range(3):
        renamed(line.folder / f"{number}.png", str(number))
    dead = line.watcher(move_to=move_to)

    def die(_: Path) -> None:
        raise RuntimeError

    line.stub.meanwhile = die
    with pytest.raises(RuntimeError):
        look(dead)
    line.stub.meanwhile = lambda _: None
    assert look(line.watcher(move_to=move_to)) == []  # it is not dead yet
    died(dead)
    assert sorted(look(line.watcher(move_to=move_to))) == ["0.png", "1.png", "2.png"]
    assert len(line.rows()) == 3


def test_what_a_dead_watcher_had_scored_and_not_moved_is_moved(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = line.stub.prediction.verdict
    renamed(line.folder / "part.png", "x")
    dead = line.watcher(move_to=line.root / "sorted")
    with monkeypatch.context() as patch:
        patch.setattr("energyad.line.watch.file_away", lambda *_, **__: (_ for _ in ()).throw(RuntimeError))
        with pytest.raises(RuntimeError):
            look(dead)
    died(dead)
    assert look(line.watcher(move_to=line.root / "sorted")) == []
    assert files_below(line.root / "sorted") == [f"{verdict}/part.png"]
    assert len(line.rows()) == 1 and files_below(line.folder) == []


def test_a_watcher_that_does_not_move_gives_private_names_back(line: Line) -> None:
    for number in range(2):
        renamed(line.folder / f"{number}.png", str(number))
    dead = line.watcher(move_to=line.root / "sorted")
    line.stub.meanwhile = lambda _: (_ for _ in ()).throw(RuntimeError)
    with pytest.raises(RuntimeError):
        look(dead)
    died(dead)
    line.stub.meanwhile = lambda _: None
    watcher = line.watcher()
    looks = [look(watcher) for _ in range(3)]
    assert sorted(name for names in looks for name in names) == ["0.png", "1.png"]
    assert files_below(line.folder) == ["0.png", "1.png"]


def test_a_file_that_ends_its_watcher_is_put_in_quarantine_with_a_reason_and_its_neighbours_are_not(
    line: Line,
) -> None:
    for number in range(3):
        renamed(line.folder / f"{number}.png", f"part {number}")
    renamed(line.folder / "evil.png", "evil")

    def die(path: Path) -> None:
        if path.read_text() == "evil":
            raise RuntimeError

    line.stub.meanwhile = die
    move_to = line.root / "sorted"
    for _ in range(MAX_ATTEMPTS):
        watcher = line.watcher(move_to=move_to)
        with pytest.raises(RuntimeError):
            for _ in range(3):
                look(watcher)
        died(watcher)
    watcher = line.watcher(move_to=move_to)
    look(watcher)
    assert (move_to / "quarantine" / "evil.png").exists()
    errors = {row.file.path: row.error for row in line.rows() if row.file is not None}
    assert len(errors) == 4 and line.stub.given.count("evil") == MAX_ATTEMPTS
    assert "begun 3 times" in (errors.pop("evil.png") or "") and set(errors.values()) == {None}


@pytest.mark.parametrize("moves", [False, True])
def test_a_file_that_waits_to_settle_while_its_watchers_are_killed_is_unreadable_and_not_quarantined(
    line: Line, moves: bool
) -> None:
    renamed(line.folder / "part.png", "broken", mtime_ns=time.time_ns())
    move_to = line.root / "sorted" if moves else None
    line.settle = 60.0
    for _ in range(MAX_ATTEMPTS + 1):
        watcher = line.watcher(move_to=move_to)
        assert look(watcher) == []
        died(watcher)  # while the file waits, not while it is scored
    line.settle = 0.0
    assert look(line.watcher(move_to=move_to)) == ["part.png"]
    assert [row.error for row in line.rows()] == ["damaged"]
    assert files_below(line.root / "sorted") == (["unreadable/part.png"] if moves else [])


def test_a_file_that_ends_the_decoder_is_tried_again_and_then_quarantined(line: Line) -> None:
    line.stub.error = DecoderEnded
    renamed(line.folder / "bomb.png", "broken")
    renamed(line.folder / "part.png", "x")
    watcher = line.watcher(move_to=line.root / "sorted")
    looks = [look(watcher) for _ in range(MAX_ATTEMPTS)]
    assert looks == [["part.png"], [], ["bomb.png"]]
    assert (line.root / "sorted" / "quarantine" / "bomb.png").exists()


def test_a_fault_of_the_model_is_no_fault_of_the_files(line: Line) -> None:
    renamed(line.folder / "part.png", "x")

    def fail(*_: object) -> None:
        raise ModelError("the model is damaged")

    for _ in range(MAX_ATTEMPTS + 1):
        with pytest.raises(ModelError):
            line.watcher(move_to=line.root / "sorted", score=fail).run(threading.Event(), once=True)  # type: ignore[arg-type]
        assert files_below(line.folder) == ["part.png"]
    line.watcher().run(threading.Event(), once=True, interval=0.01)
    assert [row.error for row in line.rows()] == [None]


def test_running_out_of_memory_costs_one_file(
    fitted_detector: AnomalyDetector, demo_category: Category, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (line.folder / f"{number}.png").write_bytes(demo_category.test[number].path.read_bytes())
    original = AnomalyDetector._score_pixels

    def greedy(self: AnomalyDetector, sources, batch):
        if any(Path(source).name == "1.png" for source in sources):
            raise MemoryError
        return original(self, sources, batch)

    monkeypatch.setattr(AnomalyDetector, "_score_pixels", greedy)
    with IsolatedDecoder() as decoder:
        watcher = line.watcher(score=score_with(lambda: fitted_detector, decoder))
        watcher.run(threading.Event(), once=True, interval=0.01)
    errors = {row.file.path: row.error for row in line.rows() if row.file is not None}
    assert "memory" in (errors.pop("1.png") or "")
    assert list(errors.values()) == [None, None]


def test_the_watcher_and_the_detector_say_the_same(
    fitted_detector: AnomalyDetector, demo_category: Category, line: Line
) -> None:
    folder = demo_category.root / "test"
    with IsolatedDecoder() as decoder:
        watcher = line.watcher(folder=folder, score=score_with(lambda: fitted_detector, decoder))
        watcher.run(threading.Event(), once=True, interval=0.01)
    rows = line.rows()
    assert len(rows) == len(demo_category.test)
    for row in rows:
        own = scored_result(
            fitted_detector.score(row.image or ""), image=row.image, model=fitted_detector.reference
        )
        assert own == type(own)(**{name: getattr(row, name) for name in type(own).model_fields})
        assert row.observation is not None and row.observation.brightness is not None


def test_a_folder_that_is_missing_is_an_error(line: Line) -> None:
    with pytest.raises(DataError, match="no such folder"):
        line.watcher(folder=line.root / "nowhere")


def test_what_cannot_be_moved_waits_with_a_warning_and_is_moved_later(line: Line) -> None:
    verdict = line.stub.prediction.verdict
    move_to = line.root / "sorted"
    watcher = line.watcher(move_to=move_to)
    (move_to / verdict).write_text("a file where the folder should be")
    renamed(line.folder / "part.png", "x")
    assert [look(watcher), look(watcher)] == [["part.png"], []]
    assert "cannot be moved there" in line.warnings[0] and len(line.warnings) == 1
    (move_to / verdict).unlink()
    look(watcher)
    assert files_below(move_to) == [f"{verdict}/part.png"] and len(line.rows()) == 1


@pytest.mark.slow
def test_a_database_that_is_full_is_waited_for(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energyad.line.watch._RETRY_SECONDS", 0.01)
    store = line.store()
    watcher = line.watcher(store=store)
    renamed(line.folder / "part.png", "x")
    with store.database.read() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar()
    set_limit(store, int(pages or 0))
    for number in range(200):
        renamed(line.folder / f"{number}-{'long' * 30}.png", "x")
    timer = threading.Timer(0.5, set_limit, (store, 10**6))
    timer.start()
    assert len(look(watcher)) == 201
    timer.join()
    assert any("full" in warning for warning in line.warnings)
    assert len(line.rows()) == 201


def set_limit(store, pages: int) -> None:
    """Let the database have no more pages, in all of its connections."""
    from sqlalchemy import event

    engine = store.database._engine

    def limit(connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")

    engine.dispose()
    for old in getattr(store, "limits", []):
        event.remove(engine, "connect", old)
    event.listen(engine, "connect", limit)
    store.limits = [limit]


def test_a_database_that_is_removed_ends_the_watcher_before_a_part_moves(line: Line) -> None:
    watcher = line.watcher(move_to=line.root / "sorted")
    Path(line.place).unlink()
    renamed(line.folder / "part.png", "x")
    with pytest.raises(DataError, match="was removed"):
        look(watcher)
    assert files_below(line.root / "sorted") == []


@pytest.mark.parametrize("moves", [True, False])
def test_a_file_that_is_gone_when_its_turn_comes_ends_nothing(
    line: Line, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = line.watcher(move_to=line.root / "sorted" if moves else None)
    path, found = renamed(line.folder / "part.png", "x"), watcher.folder.look

    def look_and_lose() -> Look:
        seen = found()
        path.unlink(missing_ok=True)
        return seen

    monkeypatch.setattr(watcher.folder, "look", look_and_lose)
    assert look(watcher) == []


def test_a_file_whose_claim_was_lost_with_the_power_is_scored(any_line: Line) -> None:
    renamed(any_line.folder / "part.png", "x")
    before = any_line.watcher(move_to=any_line.root / "sorted")
    (claim,) = before._store.claim_by_name(["part.png"])
    (any_line.folder / "part.png").rename(private_path(any_line.folder / "part.png", claim.token or ""))
    before._store.drop([claim])
    died(before)
    after = any_line.watcher(move_to=any_line.root / "sorted")
    assert look(after) + look(after) == ["part.png"]
    assert any_line.warnings == []


def test_a_private_name_of_another_database_is_named(line: Line) -> None:
    path = line.folder / "part.png"
    private_path(path, "0" * 32).write_text("x")
    look(line.watcher())
    (warning,) = line.warnings
    assert "another database" in warning and "part.png" in warning
