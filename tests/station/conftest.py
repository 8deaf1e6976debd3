"""A station to try things on: folders, a database, scores that files say themselves, and real programs to talk to."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.station.machines import Broker
from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome, UnreadableImage
from energyad.errors import ImageError
from energyad.line.database import Database
from energyad.line.watch import ReadBytes
from energyad.model.statistics import PartStatistics
from energyad.scoring.calibration import Calibration
from energyad.scoring.prediction import predict
from energyad.scoring.results import ModelReference
from energyad.station import views
from energyad.station.config import StationConfig
from energyad.station.results import PartResult
from energyad.station.running import Station
from energyad.station.triggers import Clock

MOSQUITTO_REQUIRED = "ENERGYAD_TEST_MOSQUITTO"
"""Set where a missing broker is a failure, not a reason to leave its tests out."""
MODEL = ModelReference(name="stub", sha256="0", calibrated=None)
RULE = Calibration(2.0, 0.01, "conformal", tuple(np.linspace(0.1, 1.0, 99).tolist()), review_threshold=1.0)
"""ng above 2, review above 1; p-values from 0.01 on."""


def score_texts(paths: Sequence[Path], read: ReadBytes) -> Iterator[ScoringOutcome]:
    """Score each file by the number that it holds; one that says `broken` cannot be read, and real images are good."""
    pixels = np.zeros((1, 1, 3), np.uint8)
    for path in paths:
        try:
            data = read(path)
            text = "0.5" if data.startswith(b"\x89PNG") else data.decode()
            if text == "broken":
                raise ImageError(path, "damaged")
        except ImageError as error:
            yield UnreadableImage(path, MODEL, RULE, error)
            continue
        heatmap = np.full((1, 1), float(text), np.float32)
        prediction = predict(heatmap, RULE, shape=(1, 1))
        yield ScoredImage(path, MODEL, pixels, prediction, heatmap, PartStatistics(prediction.score))


@dataclass
class Rig:
    """A station of some views below a folder; it runs in a thread while `running` lasts."""

    root: Path
    model: Path
    settings: dict[str, Any] = field(default_factory=dict)
    views: tuple[str, ...] = ("front",)
    cameras: dict[str, str] = field(default_factory=dict)
    captures: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, float] = field(default_factory=dict)
    align: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    interval: float = 0.01

    @property
    def config(self) -> StationConfig:
        view_tables = []
        for name in self.views:
            (self.root / name).mkdir(exist_ok=True)
            view = {
                "name": name,
                "folder": self.root / name,
                "interval": self.interval,
                "settle": 0.0,
                "checks": self.checks,
                "align": self.align or None,
            }
            camera = {"camera": {"source": self.cameras[name]}} if name in self.cameras else {}
            view_tables.append({**view, **camera})
        return StationConfig.model_validate(
            {
                "name": "test",
                "model": str(self.model),
                "database": str(self.root / "energyad.db"),
                "results": self.root / "results.jsonl",
                "threads": 1,
                "views": view_tables,
                **self.settings,
            }
        )

    def put(self, name: str, text: str = "0.5", *, view: str = "front") -> None:
        """An image of that score arrives, renamed into place."""
        temporary = self.root / f".{name}.part"
        temporary.write_text(text)
        (self.root / view).mkdir(exist_ok=True)
        temporary.rename(self.root / view / f"{name}.png")

    @contextlib.contextmanager
    def running(self) -> Iterator[Station]:
        with Database(self.root / "energyad.db") as database:
            station = Station(
                self.config, database, say=self.said.append, warn=self.warned.append, clock=self.clock
            )
            for camera in station.cameras:
                if self.captures:
                    camera._open = lambda config: self.captures[config.source]
            stop, errors = threading.Event(), []
            score = dict.fromkeys(self.views, score_texts)
            started = threading.Event()

            def run() -> None:
                try:
                    station.run(stop, on_start=started.set, score=score)
                except BaseException as error:
                    errors.append(error)
                    started.set()

            thread = threading.Thread(target=run)
            thread.start()
            try:
                assert started.wait(60)
                until(lambda: bool(errors) or all(view.last_look > 0 for view in station.views))
                if not errors:
                    yield station
            finally:
                stop.set()
                thread.join(60)
            if errors:
                raise errors[0]

    def run_once(self) -> None:
        with Database(self.root / "energyad.db") as database:
            station = Station(
                self.config, database, say=self.said.append, warn=self.warned.append, clock=self.clock
            )
            station.run(
                threading.Event(),
                once=True,
                score={} if self.align else dict.fromkeys(self.views, score_texts),
            )

    def parts(self) -> list[PartResult]:
        query = "SELECT line FROM parts WHERE number IS NOT NULL ORDER BY number"
        with contextlib.closing(sqlite3.connect(self.root / "energyad.db", timeout=60)) as database:
            return [PartResult.model_validate_json(line) for (line,) in database.execute(query)]

    def inspect(self, name: str, text: str = "0.5") -> None:
        """An image arrives, and its part is decided."""
        count = len(self.parts())
        self.put(name, text)
        self.await_parts(count + 1)

    def await_parts(self, count: int) -> list[PartResult]:
        until(lambda: len(self.parts()) >= count)
        return self.parts()


def until(reached: Callable[[], bool], *, seconds: float = 60.0) -> None:
    """Wait for something that happens; the limit is for what never does."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


@pytest.fixture
def rig(
    tmp_path: Path, model_folder: Path, fitted_detector: AnomalyDetector, monkeypatch: pytest.MonkeyPatch
) -> Rig:
    """Its model is loaded once for all tests; scores come from the files."""
    monkeypatch.setattr(views, "_load", lambda folder, **_: fitted_detector)
    return Rig(tmp_path, model_folder)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    try:
        broker = Broker(tmp_path)
    except FileNotFoundError as error:
        assert MOSQUITTO_REQUIRED not in os.environ, error
        pytest.skip(str(error))
    broker.start()
    yield broker
    broker.stop()
