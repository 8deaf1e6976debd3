"""A folder that images arrive in: each complete file is scored once, also when the watcher is killed in between.

The journal is the only memory. A file is noted there, on the disk, before anything else is done with it; what is not
noted is scored again. Polling, since network folders, where cameras write, report no changes.
"""

from __future__ import annotations

import datetime
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome, name_of
from energyad.errors import DataError, os_reason
from energyad.images.decoding import DEFAULT_MAX_PIXELS
from energyad.images.finding import IMAGE_SUFFIXES
from energyad.line.journal import FileSeen, Journal, JournalLine, Statistics

POLL_SECONDS: Final = 0.5
CHUNK: Final = 16
"""Files noted together: one wait for the disk for all of them."""


ScoreFiles: TypeAlias = Callable[[Sequence[Path]], Iterable[ScoringOutcome]]
"""Scores files in their order; one that cannot be read gives an UnreadableImage."""


def score_with(model: Callable[[], AnomalyDetector], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> ScoreFiles:
    """Score each batch of files with the detector that `model` returns at that moment."""
    return lambda paths: model().score_images(paths, max_pixels=max_pixels)


@dataclass(frozen=True)
class _Look:
    """A file as it was found. renamed: its place is newer than its content, so it was moved here as a whole."""

    size: int
    mtime_ns: int
    renamed: bool


class Folder:
    """The files of a folder, looked at again and again."""

    def __init__(self, folder: Path, *, leave_out: Path | None = None) -> None:
        self.folder = folder
        self._leave_out = None if leave_out is None else leave_out.resolve()
        self._before: dict[Path, _Look] = {}
        self._confirmed: set[Path] = set()

    def look(self) -> dict[Path, FileSeen]:
        """Files that are complete, oldest first: unchanged since the last look, or renamed into place.

        Raises DataError where the folder cannot be listed.
        """
        now = dict(self._files())
        complete = {
            path: look for path, look in now.items() if look.renamed or self._before.get(path) == look
        }
        self._confirmed = {path for path, look in now.items() if self._before.get(path) == look}
        self._before = now
        by_age = sorted(complete.items(), key=lambda item: (item[1].mtime_ns, item[0]))
        return {path: self.seen(path, look) for path, look in by_age}

    def is_confirmed(self, path: Path) -> bool:
        """Whether it was the same in the last two looks, so that a fault in it is no writer's who is not done."""
        return path in self._confirmed

    def is_unchanged(self, path: Path) -> bool:
        """Whether it is still as it was in the last look."""
        try:
            now = _look(path.stat())
        except OSError:
            return False
        return now == self._before.get(path)

    def seen(self, path: Path, look: _Look) -> FileSeen:
        """What the journal notes of it."""
        name = name_of(path.relative_to(self.folder).as_posix())
        return FileSeen(path=name or "", size=look.size, mtime_ns=look.mtime_ns)

    def _files(self) -> Iterator[tuple[Path, _Look]]:
        def refuse(error: OSError) -> None:
            if Path(error.filename) == self.folder:
                reason = (error.strerror or "").lower()
                raise DataError(f"{self.folder}: cannot be searched: {reason}; check the folder") from error

        for here, folders, names in os.walk(self.folder, onerror=refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            if self._leave_out is not None:
                folders[:] = [name for name in folders if Path(here, name).resolve() != self._leave_out]
            for name in names:
                path = Path(here, name)
                if path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                    try:
                        yield path, _look(path.stat())
                    except OSError:  # gone since it was listed
                        continue


def _look(found: os.stat_result) -> _Look:
    return _Look(found.st_size, found.st_mtime_ns, renamed=found.st_ctime_ns > found.st_mtime_ns)


class Watcher:
    """Scores what arrives in a folder and notes it in a journal that is open for writing.

    move_to: where noted files go, into a folder for each verdict; None leaves them where they are.
    Raises DataError where there is no such folder.
    """

    def __init__(
        self, folder: Path, journal: Journal, score: ScoreFiles, *, move_to: Path | None = None
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; make it, or check the path")
        self.folder = Folder(folder, leave_out=move_to)
        self._journal, self._score, self._move_to = journal, score, move_to
        self._verdicts: dict[FileSeen, str] = {
            line.file: _place(line) for line in journal.lines() if line.file is not None
        }

    def run(
        self,
        stop: threading.Event,
        *,
        noted: Callable[[JournalLine], None] = lambda line: None,
        interval: float = POLL_SECONDS,
        once: bool = False,
    ) -> None:
        """Look, score, note, until `stop` is set; the files at hand are finished first.

        noted: called for each line when it is on the disk. interval: seconds between looks. once: two looks, then end.
        Raises DataError where the folder or the journal is lost.
        """
        looks = 0
        while not stop.is_set():
            for line in self.look(stop):
                noted(line)
            looks += 1
            if once and looks == 2:
                return
            stop.wait(interval)

    def look(self, stop: threading.Event) -> Iterator[JournalLine]:
        """Look once: score the complete files that are new, and move those that are noted."""
        complete = self.folder.look()
        for path, file in complete.items():
            if file in self._verdicts:
                self._move(path, file)
        new = [path for path, file in complete.items() if file not in self._verdicts]
        for start in range(0, len(new), CHUNK):
            if stop.is_set():
                return
            lines = self._note(new[start : start + CHUNK], complete)
            yield from lines

    def _note(self, paths: Sequence[Path], files: dict[Path, FileSeen]) -> list[JournalLine]:
        done = {}
        for path, image in zip(paths, self._score(paths), strict=True):
            # A file that changed while it was read is another one by now; a fault is final when nobody writes any more.
            final = isinstance(image, ScoredImage) or self.folder.is_confirmed(path)
            if final and self.folder.is_unchanged(path):
                done[path] = _line(image, files[path])
        self._journal.append(list(done.values()))
        for path, line in done.items():
            self._verdicts[files[path]] = _place(line)
            self._move(path, files[path])
        return list(done.values())

    def _move(self, path: Path, file: FileSeen) -> None:
        if self._move_to is None:
            return
        target = self._move_to / self._verdicts[file] / path.relative_to(self.folder.folder)
        while target.exists():
            target = target.with_name(f"{target.stem}_{target.suffix}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        except FileNotFoundError:  # somebody else took it
            return
        except OSError as error:
            reason = os_reason(error)
            raise DataError(f"{target}: cannot be moved there: {reason}; give another --move-to") from error


def _place(line: JournalLine) -> str:
    return line.verdict or "unreadable"


def _line(image: ScoringOutcome, file: FileSeen) -> JournalLine:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    statistics = None
    if isinstance(image, ScoredImage):
        statistics = Statistics(**{name: getattr(image.statistics, name) for name in Statistics.model_fields})
    return JournalLine(**dict(image.result()), time=now, file=file, statistics=statistics)
