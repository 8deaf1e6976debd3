"""Laws of the results file: it holds what the database holds, in its order, whatever happens to it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from energyad.errors import DataError
from energyad.line.journal import drift_of_results, read_journal, read_results
from energyad.line.results_file import ResultsFile
from energyad.model.folder import read_manifest

from .conftest import Line, look, renamed


def score(line: Line, *names: str) -> None:
    watcher = line.watcher()
    for name in names:
        renamed(line.folder / f"{name}.png", name)
    assert len(look(watcher)) == len(names)


def kept(line: Line) -> str:
    return "".join(f"{row.json_line()}\n" for row in line.rows())


def test_the_results_file_holds_the_lines_of_the_database(any_line: Line) -> None:
    score(any_line, "a", "b")
    any_line.written()
    score(any_line, "c")
    any_line.written()
    assert any_line.out.read_text() == kept(any_line)
    assert [row.file.path for row in any_line.rows() if row.file is not None] == ["a.png", "b.png", "c.png"]


def damages() -> dict[str, Callable[[Path], object]]:
    return {
        "removed": lambda out: out.unlink(),
        "emptied": lambda out: out.write_text(""),
        "cut": lambda out: os.truncate(out, 30),
        "half a line too many": lambda out: out.write_bytes(out.read_bytes() + out.read_bytes()[:50]),
        "a line of somebody else": lambda out: out.write_text(out.read_text() + "a note\n"),
    }


@pytest.mark.parametrize("damage", damages())
def test_a_results_file_that_was_damaged_while_nobody_watched_is_written_again(
    line: Line, damage: str
) -> None:
    score(line, "a", "b")
    line.written()
    before = line.out.read_text()
    damages()[damage](line.out)
    score(line, "c")
    line.written()
    assert line.out.read_text() == kept(line)
    aside = list(line.root.glob("results.other*.jsonl"))
    assert len(aside) == (damage == "a line of somebody else")
    assert all(path.read_text() == before + "a note\n" for path in aside)


def test_a_line_that_was_written_and_not_noted_is_not_written_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(line, "a")
    line.written()
    score(line, "b", "c")
    with line.out.open("a") as file:  # as a writer that was killed before it noted them
        file.write(kept(line)[len(line.out.read_text()) :])
        file.flush()
    os.truncate(line.out, line.out.stat().st_size - 7)
    line.written()
    assert line.out.read_text() == kept(line)


@pytest.mark.parametrize("damage", ["removed", "emptied"])
def test_a_results_file_removed_while_it_is_written_appears_again(line: Line, damage: str) -> None:
    store = line.store()
    score(line, "a")
    with ResultsFile(store.database, store.stream_id, store.out) as results:
        deadline = time.monotonic() + 20
        for number in range(3):
            while not (line.out.exists() and line.out.read_text() == kept(line)):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            damages()[damage](line.out)
            score(line, f"b{number}")
            results.tell()
    assert line.out.read_text() == kept(line)


def test_of_two_writers_one_writes_and_the_other_goes_on_after_it(line: Line) -> None:
    store = line.store()
    score(line, "a")
    with ResultsFile(store.database, store.stream_id, store.out):
        with ResultsFile(store.database, store.stream_id, store.out):
            pass
        assert line.out.exists()
    with ResultsFile(store.database, store.stream_id, store.out):
        score(line, "b")
    assert line.out.read_text() == kept(line)


def test_a_full_disk_holds_up_the_results_file_alone(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    score(line, "a", "b")
    store = line.store()
    original, writes = os.write, [0]

    def full(handle: int, data: bytes) -> int:
        writes[0] += 1
        if writes[0] == 1:
            return original(handle, bytes(data)[:40])
        if writes[0] < 4:
            raise OSError(28, "No space left on device")
        return original(handle, data)

    warnings: list[str] = []
    monkeypatch.setattr("energyad.line.results_file.os.write", full)
    with ResultsFile(store.database, store.stream_id, store.out, warn=warnings.append) as results:
        deadline = time.monotonic() + 20
        while line.out.read_text() != kept(line):
            assert time.monotonic() < deadline
            results.tell()
            time.sleep(0.01)
    assert len(warnings) == 1 and "no space left" in warnings[0]


def test_a_results_file_of_before_the_database_is_refused_in_one_line(line: Line) -> None:
    line.out.write_text("{}\n")
    with pytest.raises(DataError, match="knows nothing of it; move it away or give another --out"):
        line.watcher()


def test_results_are_read_from_the_file_and_from_either_database(any_line: Line, model_folder: Path) -> None:
    score(any_line, "a", "b")
    any_line.written()
    assert read_results(any_line.out) == read_journal(any_line.out) == read_results(any_line.place)
    manifest = read_manifest(model_folder)
    for place in (any_line.out, any_line.place):
        with pytest.raises(
            DataError, match=f"not of this {manifest.name}|no results of this {manifest.name}"
        ):
            drift_of_results(place, manifest)
