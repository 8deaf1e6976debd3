"""One view of a station: a folder that is watched, and the model that scores what arrives there."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

import cv2
import numpy as np
from sqlalchemy.orm import Session

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome
from energyad.images.decoding import largest_file
from energyad.images.isolated import IsolatedDecoder
from energyad.line.database import Database
from energyad.line.drift import CHECK_EVERY
from energyad.line.filing import PRIVATE_NAME
from energyad.line.journal import JournalLine
from energyad.line.reloading import ReloadingDetector
from energyad.line.store import LineStore, Scored
from energyad.line.tables import Result
from energyad.line.watch import ReadBytes, ScoreFiles, Watcher, open_decoder, score_with
from energyad.model.folder import find_model
from energyad.station.aligning import FrameAligner, open_aligner
from energyad.station.combining import for_view
from energyad.station.config import ChecksConfig, StationConfig, ViewConfig
from energyad.station.frames import Fault, fault_of, measure_frame
from energyad.station.outage import Outage
from energyad.station.parts import PartBook
from energyad.station.triggers import Clock, FolderTriggers

_MAX_FAULTS: Final = 1_000


class View:
    """Watches the folder of a view in a thread.

    Args:
        station: The station.
        view: The view.
        database: The line's.
        clock: Tells the time.
        outage: Told where the database is away.
        say: Called with messages for people.
        warn: Called with warnings for people.

    Raises:
        ModelError: The model cannot be loaded.
        ImageError: The reference that parts are aligned with cannot be read.
        DataError: The results file is of another database.
    """

    def __init__(
        self,
        station: StationConfig,
        view: ViewConfig,
        database: Database,
        *,
        clock: Clock,
        outage: Outage,
        say: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.name, self._config, self._station = view.name, view, station
        self._clock, self._outage, self._say, self._warn = clock, outage, say, warn
        self.triggers = FolderTriggers(clock)
        self._faults: OrderedDict[str, Fault] = OrderedDict()
        self.model = ReloadingDetector(
            find_model(station.model_of(view)),
            functools.partial(_load, threads=station.threads, views=len(station.views)),
            on_reload=self._on_reload,
            on_error=lambda error: warn(f"view {view.name}: the old model stays: {error}"),
        )
        self._reference = self.model().reference
        white_level = self.model().manifest.input.white_level
        self._aligner = (
            None if view.align is None else FrameAligner(open_aligner(view.align, white_level=white_level))
        )
        self.store = LineStore(
            database, out=station.results, folder=view.folder, station=station.name, on_result=self._on_result
        )
        self._book: PartBook | None = None
        self._monitor = self.store.drift_monitor(self.model().manifest)
        self._num_images = 0
        self.is_drifted = False
        self.is_ready = threading.Event()
        self._news = threading.Event()
        self.last_look = float("-inf")
        self.error: BaseException | None = None

    def watch(
        self,
        book: PartBook,
        stop: threading.Event,
        *,
        on_image: Callable[[], None],
        once: bool = False,
        score: ScoreFiles | None = None,
    ) -> None:
        """Score what arrives until `stop` is set, which an error does too.

        Args:
            book: The station's parts.
            stop: Ends it.
            on_image: Called for each image when its result is on the disk.
            once: End when what is there has been scored.
            score: Scores files; by default the view's model, which decodes them in processes that can be ended.
        """
        self._book = book
        try:
            if score is not None:
                self._run(score, stop, on_image, once)
                return
            max_pixels = round(self._station.max_megapixels * 1e6)
            seconds = self._station.decode_seconds
            with open_decoder(self.model(), seconds=seconds, max_pixels=max_pixels) as decoder:
                _warm_up(decoder, self.model())
                before = None if self._aligner is None else self._aligner.before
                score_files = score_with(self.model, decoder, max_pixels=max_pixels, before=before)
                self._run(score_files, stop, on_image, once)
        except BaseException as error:
            self.error = error
            stop.set()
        finally:
            self.is_ready.set()

    def wake(self) -> None:
        """Look at once: there is a new file, or the station ends."""
        self._news.set()

    def _run(
        self, score: ScoreFiles, stop: threading.Event, on_image: Callable[[], None], once: bool
    ) -> None:
        images = self._station.images
        watcher = _ViewWatcher(
            *(self._config.folder, self.store, self._checked(score)),
            move_to=None if images is None else images.folder,
            settle=self._config.settle,
            max_bytes=largest_file(round(self._station.max_megapixels * 1e6)),
            warn=self._warn,
            on_new=self.triggers.on_new,
            is_whole=self.triggers.is_announced,
            news=self._news,
            on_outage=self._outage.note,
        )
        watcher.on_look = self._on_look
        self.is_ready.set()

        def noted(line: JournalLine) -> None:
            self._on_line(line)
            on_image()

        watcher.run(stop, noted=noted, interval=self._config.interval, once=once)

    def _checked(self, score: ScoreFiles) -> ScoreFiles:
        """Also look whether each frame can be judged, where the file has limits or a reference for that."""
        if self._config.checks == ChecksConfig() and self._aligner is None:
            return score

        def checked(paths: Sequence[Path], read: ReadBytes) -> Iterator[ScoringOutcome]:
            for path, scored in zip(paths, score(paths, read), strict=True):
                outcome, fault = self._examined(path, scored)
                if fault is not None:
                    self._faults[_key(path)] = fault
                yield outcome
            while len(self._faults) > _MAX_FAULTS:
                self._faults.popitem(last=False)

        return checked

    def _examined(self, path: Path, outcome: ScoringOutcome) -> tuple[ScoringOutcome, Fault | None]:
        """An image in the camera's pixels, and why it cannot be judged."""
        if not isinstance(outcome, ScoredImage):
            if self._aligner is not None:
                self._aligner.forget(path)
            return outcome, None
        has_part = True
        if self._aligner is not None:
            outcome, has_part = self._aligner.after(path, outcome)
        fault = fault_of(measure_frame(outcome.pixels), self._config.checks)
        return outcome, "no_part" if not has_part and fault in (None, "blurred") else fault

    def _on_look(self, began: float) -> None:
        self.last_look = began

    def _on_result(self, session: Session, result: Result, scored: Scored) -> None:
        """In the transaction that stores an image's result: it joins its part."""
        if self._book is None:
            return
        path = self._config.folder / scored.claim.path
        name = str(PurePosixPath(scored.claim.path).with_suffix(""))
        self._book.add(
            session,
            result,
            view=self.name,
            name=name,
            trigger=self.triggers.of(path),
            fault=self._faults.get(scored.claim.token or str(path)),
        )

    def _on_line(self, line: JournalLine) -> None:
        if line.observation is None:
            return
        self._monitor.add(line.observation)
        self._num_images += 1
        if self._num_images % CHECK_EVERY == 0:
            drift = self._monitor.check()
            is_drifted = drift.state == "shifted"
            if is_drifted != self.is_drifted:
                self.is_drifted = is_drifted
                (self._warn if is_drifted else self._say)(f"view {self.name}: drift: {drift.advice}")

    def _on_reload(self, detector: AnomalyDetector) -> None:
        self._monitor = self.store.drift_monitor(detector.manifest)
        before, self._reference = self._reference, detector.reference
        is_calibrated = (
            before.sha256 == self._reference.sha256 and before.calibrated != self._reference.calibrated
        )
        what = "was calibrated anew" if is_calibrated else "was replaced"
        self._say(
            f"view {self.name}: {detector.name} {what}; its threshold is {detector.threshold:.4g} from now on"
        )


class _ViewWatcher(Watcher):
    """A watcher that says when each complete look began."""

    on_look: Callable[[float], None]

    def look(self, stop: threading.Event) -> Iterator[JournalLine]:
        """Look once, see `Watcher.look`."""
        began = time.monotonic()
        yield from super().look(stop)
        if not stop.is_set():
            self.on_look(began)


def _load(folder: Path, *, threads: int | None, views: int) -> AnomalyDetector:
    return for_view(AnomalyDetector.load(folder, threads=threads), views=views)


def _key(path: Path) -> str:
    """What a file is known by while it is scored: its private name holds its claim."""
    match = PRIVATE_NAME.fullmatch(path.name)
    return str(path) if match is None else match[1]


def _warm_up(decoder: IsolatedDecoder, detector: AnomalyDetector) -> None:
    """Decode and score one image, so that the first part waits for no process and no allocation."""
    height, width = detector.input_shape
    _, data = cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))
    pixels = decoder.decode(
        data.tobytes(),
        name="a black image",
        max_pixels=height * width,
        white_level=detector.manifest.input.white_level,
    )
    detector.score_pixels([pixels])
