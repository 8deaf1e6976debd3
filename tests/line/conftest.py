"""A line to try things on: a folder, a database of either kind, and a model whose scores cost nothing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from benchmarks.robustness.postgres import NoServer, new_database, private_server
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome, UnreadableImage
from energyad.errors import ImageError
from energyad.line.database import Database
from energyad.line.incoming import FileState
from energyad.line.journal import JournalLine, read_journal, read_results
from energyad.line.results_file import ResultsFile
from energyad.line.store import LineStore
from energyad.line.watch import ReadBytes, ScoreFiles, Watcher
from energyad.model.statistics import PartStatistics
from energyad.scoring.calibration import Calibration
from energyad.scoring.prediction import Prediction
from energyad.scoring.results import ModelReference

POSTGRES_REQUIRED = "ENERGYAD_TEST_POSTGRES"
"""Set where a missing server is a failure, not a reason to leave its tests out."""
MODEL = ModelReference(name="stub", sha256="0", calibrated=None)
RULE = Calibration(1.0, 0.01, "conformal", (0.5,))


class Stub:
    """Cannot read a file that says `broken`, and scores the others alike; keeps what it was given."""

    def __init__(self, prediction: Prediction) -> None:
        self.given: list[str] = []
        self.prediction = prediction
        self.meanwhile: Callable[[Path], None] = lambda path: None
        self.error: type[ImageError] = ImageError

    def __call__(self, paths: Sequence[Path], read: ReadBytes) -> Iterator[ScoringOutcome]:
        for path in paths:
            try:
                text = read(path).decode()
                self.given.append(text)
                self.meanwhile(path)
                if text == "broken":
                    raise self.error(path, "damaged")
            except ImageError as error:
                yield UnreadableImage(path, MODEL, RULE, error)
                continue
            heatmap = self.prediction.heatmap
            pixels = np.zeros((*heatmap.shape, 3), np.uint8)
            yield ScoredImage(
                path, MODEL, pixels, self.prediction, heatmap, PartStatistics(self.prediction.score)
            )


@dataclass
class Line:
    """A watched folder with its results; watchers live until they are stopped or the test ends."""

    root: Path
    place: str | Path
    stub: Stub
    settle: float = 0.0
    warnings: list[str] = field(default_factory=list)
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def folder(self) -> Path:
        return self.root / "in"

    @property
    def out(self) -> Path:
        return self.root / "results.jsonl"

    def store(self, *, folder: Path | None = None, out: Path | None = None) -> LineStore:
        database = self.stack.enter_context(Database(self.place))
        return LineStore(database, out=out or self.out, folder=folder or self.folder, station="one")

    def watcher(
        self,
        *,
        folder: Path | None = None,
        out: Path | None = None,
        move_to: Path | None = None,
        score: ScoreFiles | None = None,
        store: LineStore | None = None,
    ) -> Watcher:
        folder = folder or self.folder
        return Watcher(
            folder,
            store or self.store(folder=folder, out=out),
            score or self.stub,
            move_to=move_to,
            settle=self.settle,
            max_bytes=10**6,
            warn=self.warnings.append,
        )

    def rows(self) -> list[JournalLine]:
        return read_results(self.place)

    def written(self, out: Path | None = None) -> list[JournalLine]:
        """What the results file holds, when all of it is written."""
        store = self.store(out=out)
        with ResultsFile(store.database, store.stream_id, store.out, warn=self.warnings.append):
            pass
        return read_journal(store.out)


def look(watcher: Watcher) -> list[str]:
    return [line.file.path for line in watcher.look(threading.Event()) if line.file is not None]


def died(watcher: Watcher) -> None:
    """As if its process had ended without a word."""
    watcher._store.registration.end()


def renamed(path: Path, text: str, *, mtime_ns: int = 10**18) -> Path:
    """Written elsewhere and moved into place, as careful writers do."""
    path.parent.mkdir(exist_ok=True, parents=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    os.utime(temporary, ns=(mtime_ns, mtime_ns))
    temporary.rename(path)
    return path


def state(text: str = "x") -> FileState:
    return FileState(len(text), 10**18, text, f"0:{text}")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    try:
        with private_server() as server:
            yield server
    except NoServer as error:
        if os.environ.get(POSTGRES_REQUIRED):
            raise
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Where an empty database may be made."""
    if request.param == "sqlite":
        return tmp_path / "energyad.db"
    return new_database(request.getfixturevalue("postgres"))


@pytest.fixture
def stub(fitted_detector: AnomalyDetector, demo_category: Category) -> Stub:
    return Stub(fitted_detector.score(demo_category.test[0].path))


@pytest.fixture
def line(tmp_path: Path, stub: Stub) -> Iterator[Line]:
    """On SQLite."""
    (tmp_path / "in").mkdir()
    line = Line(tmp_path, tmp_path / "energyad.db", stub)
    with line.stack:
        yield line


@pytest.fixture
def any_line(tmp_path: Path, stub: Stub, place: str | Path) -> Iterator[Line]:
    """On either kind of database."""
    (tmp_path / "in").mkdir()
    line = Line(tmp_path, place, stub)
    with line.stack:
        yield line
