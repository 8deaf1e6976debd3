"""Laws of watching: every complete file once, whatever ends the watcher; nothing half written or moved unasked."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.robustness.kills import STUB, run_with_kills
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome, UnreadableImage
from energyad.errors import DataError, ImageError
from energyad.line.journal import Journal, JournalLine, read_journal
from energyad.line.watch import Watcher, score_with
from energyad.model import statistics
from energyad.scoring.calibration import Calibration
from energyad.scoring.prediction import Prediction
from energyad.scoring.results import ModelReference, scored_result

MODEL = ModelReference(name="stub", sha256="0", calibrated=None)
RULE = Calibration(1.0, 0.01, "conformal", (0.5,))


class Stub:
    """Calls a file that says so broken, and scores the others by their length; keeps what it was given."""

    def __init__(self, prediction: Prediction) -> None:
        self.given: list[str] = []
        self.prediction = prediction
        self.meanwhile: Callable[[Path], None] = lambda path: None

    def __call__(self, paths: Sequence[Path]) -> Iterator[ScoringOutcome]:
        for path in paths:
            self.given.append(path.name)
            text = path.read_text()
            self.meanwhile(path)
            if text == "broken":
                yield UnreadableImage(path, MODEL, RULE, ImageError(path, "damaged"))
            else:
                heatmap = self.prediction.heatmap
                pixels = np.zeros((*heatmap.shape, 3), np.uint8)
                part = statistics.PartStatistics(self.prediction.score)
                yield ScoredImage(path, MODEL, pixels, self.prediction, heatmap, part)


@pytest.fixture
def stub(fitted_detector: AnomalyDetector, demo_category: Category) -> Stub:
    return Stub(fitted_detector.score(demo_category.test[0].path))


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def renamed(path: Path, text: str) -> None:
    """Written elsewhere and moved into place, as careful writers do."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    os.utime(temporary, ns=(10**18, 10**18))
    temporary.rename(path)


def look(watcher: Watcher) -> list[str]:
    return [line.file.path for line in watcher.look(threading.Event()) if line.file is not None]


def test_a_file_is_taken_when_two_looks_agree_and_a_renamed_one_at_once(incoming: Path, stub: Stub) -> None:
    with Journal(incoming / "out.jsonl") as journal:
        watcher = Watcher(incoming, journal, stub)
        renamed(incoming / "whole.png", "x")
        growing = (incoming / "growing.png").open("w")
        found = []
        for _ in range(3):
            growing.write("more ")
            growing.flush()
            found.append(look(watcher))
        growing.close()
        assert found == [["whole.png"], [], []]
        assert [look(watcher), look(watcher), look(watcher)] == [["growing.png"], [], []]


def test_only_images_are_taken_in_subfolders_too_and_hidden_ones_never(incoming: Path, stub: Stub) -> None:
    for name in ("a.png", "line 1/b.JPG", ".hidden.png", ".tmp/c.png", "notes.txt", "d.png.part"):
        renamed(incoming / name, "x")
    with Journal(incoming / "out.jsonl") as journal:
        assert sorted(look(Watcher(incoming, journal, stub))) == ["a.png", "line 1/b.JPG"]


def test_a_new_file_of_an_old_name_is_scored_and_an_old_file_is_not(incoming: Path, stub: Stub) -> None:
    with Journal(incoming / "out.jsonl") as journal:
        watcher = Watcher(incoming, journal, stub)
        renamed(incoming / "part.png", "first")
        look(watcher)
        renamed(incoming / "part.png", "second")
        look(watcher)
    with Journal(incoming / "out.jsonl") as journal:
        assert look(Watcher(incoming, journal, stub)) == []
        sizes = [line.file.size for line in journal.lines() if line.file is not None]
    assert sizes == [5, 6] and stub.given == ["part.png", "part.png"]


def test_a_fault_is_noted_only_when_nobody_writes_any_more(incoming: Path, stub: Stub) -> None:
    with Journal(incoming / "out.jsonl") as journal:
        watcher = Watcher(incoming, journal, stub)
        renamed(incoming / "part.png", "broken")  # it looks whole, so it is tried at once
        assert look(watcher) == []
        assert look(watcher) == ["part.png"]
        (line,) = journal.lines()
    assert (line.error, line.verdict, line.observation) == ("damaged", None, None)


def test_a_file_that_changes_or_goes_while_it_is_read_is_not_noted(incoming: Path, stub: Stub) -> None:
    with Journal(incoming / "out.jsonl") as journal:
        watcher = Watcher(incoming, journal, stub)
        renamed(incoming / "part.png", "x")
        stub.meanwhile = lambda path: renamed(path, "another")
        assert look(watcher) == []
        stub.meanwhile = lambda path: path.unlink()
        assert look(watcher) == []
        assert look(watcher) == []
        assert journal.lines() == []


def test_files_are_moved_by_verdict_only_where_asked_also_those_noted_before_a_kill(
    incoming: Path, stub: Stub, tmp_path: Path
) -> None:
    verdict = stub.prediction.verdict
    renamed(incoming / "sub" / "part.png", "x")
    with Journal(tmp_path / "out.jsonl") as journal:
        assert look(Watcher(incoming, journal, stub)) == ["sub/part.png"]
    assert (incoming / "sub" / "part.png").exists()
    done = incoming / "done"  # inside the watched folder, and yet not watched
    with Journal(tmp_path / "out.jsonl") as journal:
        watcher = Watcher(incoming, journal, stub, move_to=done)
        assert look(watcher) == []
        assert (done / verdict / "sub" / "part.png").exists()
        renamed(incoming / "sub" / "part.png", "another of that name")
        assert look(watcher) == ["sub/part.png"]
    assert len(list((done / verdict / "sub").iterdir())) == 2
    assert [path for path in incoming.rglob("*.png") if done not in path.parents] == []


def test_the_watcher_and_the_detector_say_the_same(
    fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    folder = demo_category.root / "test"
    with Journal(tmp_path / "out.jsonl") as journal:
        watcher = Watcher(folder, journal, score_with(lambda: fitted_detector))
        watcher.run(threading.Event(), once=True, interval=0.01)
        lines = journal.lines()
    assert len(lines) == len(demo_category.test)
    for line in lines:
        own = scored_result(
            fitted_detector.score(line.image or ""), image=line.image, model=fitted_detector.reference
        )
        assert own == type(own)(**{name: getattr(line, name) for name in type(own).model_fields})
        assert line.observation is not None and line.observation.brightness is not None


def test_a_folder_that_is_missing_is_an_error(tmp_path: Path, stub: Stub) -> None:
    with Journal(tmp_path / "out.jsonl") as journal, pytest.raises(DataError, match="no such folder"):
        Watcher(tmp_path / "nowhere", journal, stub)


def test_two_watchers_do_not_share_a_journal_and_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    with Journal(tmp_path / "out.jsonl"), pytest.raises(DataError, match=f"process {os.getpid()}"):
        Journal(tmp_path / "out.jsonl").__enter__()
    with Journal(tmp_path / "out.jsonl"):
        pass


def test_a_torn_last_line_is_cut_off_and_a_foreign_line_is_named(
    tmp_path: Path, incoming: Path, stub: Stub
) -> None:
    out = tmp_path / "out.jsonl"
    for name in ("a.png", "b.png"):
        renamed(incoming / name, "x")
    with Journal(out) as journal:
        look(Watcher(incoming, journal, stub))
    whole = out.read_bytes()
    out.write_bytes(whole[:-7])
    assert [line.file.path for line in read_journal(out) if line.file] == ["a.png"]
    with Journal(out) as journal:
        assert look(Watcher(incoming, journal, stub)) == ["b.png"]
    assert len(read_journal(out)) == 2
    out.write_bytes(b'{"score": 1}\n' + whole)
    with pytest.raises(DataError, match=r"out.jsonl, line 1: no result"):
        read_journal(out)


def test_lines_of_the_score_command_are_read_too(
    fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    prediction = fitted_detector.score(demo_category.test[0].path)
    result = scored_result(prediction, image="a.png", model=fitted_detector.reference)
    (tmp_path / "scores.jsonl").write_text(result.json_line() + "\n")
    (line,) = read_journal(tmp_path / "scores.jsonl")
    assert isinstance(line, JournalLine) and line.file is None
    assert line.observation == statistics.PartStatistics(prediction.score)


@pytest.mark.slow
def test_a_watcher_killed_at_random_moments_notes_every_file_once(tmp_path: Path) -> None:
    found = run_with_kills(STUB, tmp_path, files=80, kills=3, seed=3)
    assert (found.lost, found.twice, found.wrong) == (0, 0, 0)
    assert found.killed_at_work > 0  # all of them, where nothing else keeps the machine busy
