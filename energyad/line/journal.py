"""A file of results that survives its writer: one line an image, on the disk before anything else is done.

Each line is an `ImageResult` with three fields more: which file it was (so that it is not scored twice), when, and what
its pixels looked like (for telling drift). Lines that `energyad score --json` printed can be read too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from energyad.errors import DataError, first_validation_error, os_reason
from energyad.line.drift import WINDOW, Drift, compare
from energyad.model.folder import GRAPH_FILE
from energyad.model.manifest import Manifest
from energyad.model.statistics import PartStatistics
from energyad.scoring.results import ImageResult

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


class FileSeen(BaseModel):
    """One state of one file. Another size or time of change is another file."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="below the watched folder, with /")
    size: int
    mtime_ns: int


class Statistics(BaseModel):
    """What the pixels looked like; see `observation.PartStatistics`."""

    model_config = ConfigDict(frozen=True)

    brightness: float | None
    contrast: float | None
    sharpness: float | None
    heatmap_mean: float | None


class JournalLine(ImageResult):
    """A result as `watch` keeps it. The additions are null where the line was printed by `score`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    time: str | None = Field(default=None, description="when it was scored, ISO 8601")
    file: FileSeen | None = None
    statistics: Statistics | None = None

    @property
    def observation(self) -> PartStatistics | None:
        """For telling drift; None for an image that could not be scored."""
        if self.score is None:
            return None
        seen = {} if self.statistics is None else self.statistics.model_dump()
        return PartStatistics(self.score, **seen, category=self.category)


def read_journal(path: str | Path) -> list[JournalLine]:
    """All lines of a results file; a last one that is torn is left out. Raises DataError naming a line that is none."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        reason = os_reason(error)
        raise DataError(
            f"{path}: cannot be read: {reason}; give a file of `energyad watch` or `energyad score --json`"
        ) from error
    *whole, last = content.split(b"\n")
    lines = [_line(path, number, line) for number, line in enumerate(whole, start=1) if line.strip()]
    if last.strip():
        with contextlib.suppress(*[DataError] * bool(lines)):
            lines.append(_line(path, len(whole) + 1, last))
    return lines


def _line(path: str | Path, number: int, line: bytes) -> JournalLine:
    try:
        return JournalLine.model_validate_json(line)
    except ValidationError as error:
        where, fault = first_validation_error(error)
        where = where or "the whole line"
        raise DataError(
            f"{path}, line {number}: no result of energyad ({where}: {fault.lower()}); remove that line"
        ) from error


def drift_of(
    lines: Sequence[JournalLine], manifest: Manifest, *, window: int = WINDOW, source: str = "the results"
) -> Drift:
    """Drift of the latest parts of a results file. source: what errors call it. Raises DataError where none of its
    lines is of this model.
    """
    own = _own(lines, manifest)
    if lines and not own:
        raise DataError(
            f"{source}: results of {lines[-1].model.name}, not of this {manifest.name}; give its --model"
        )
    return compare(manifest.good_parts, latest_parts(own, manifest, window=window), model=manifest.name)


def latest_parts(
    lines: Sequence[JournalLine], manifest: Manifest, *, window: int = WINDOW
) -> list[PartStatistics]:
    """The latest parts that this model's scorer saw, before and after a calibration; of another they are no match."""
    parts = [line.observation for line in _own(lines, manifest)]
    return [part for part in parts if part is not None][-window:]


def _own(lines: Sequence[JournalLine], manifest: Manifest) -> list[JournalLine]:
    graph = manifest.files.get(GRAPH_FILE)
    return [line for line in lines if line.model.sha256 == graph]


class Journal:
    """The one writer of a results file. Use it in a `with` statement.

    A line that a killed writer left half written is cut off; what it described was not noted, and will be again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = self._file = -1

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._cut_torn_line()
            self._sync_folder()
        except OSError as error:
            self.__exit__(None, None, None)
            reason = os_reason(error)
            raise DataError(f"{self.path}: cannot be written: {reason}; give another --out") from error
        except DataError:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in (self._file, self._lock):
            with contextlib.suppress(OSError):
                os.close(handle)
        self._file = self._lock = -1

    def lines(self) -> list[JournalLine]:
        """What is in it. Raises DataError naming a line that is no result."""
        return read_journal(self.path)

    def append(self, lines: Sequence[JournalLine]) -> None:
        """Add lines; they are on the disk when this returns. Raises DataError where they cannot be written."""
        data = "".join(f"{line.json_line()}\n" for line in lines).encode()
        try:
            while data:  # a full disk or a signal may take a part only
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        except OSError as error:
            reason = os_reason(error)
            raise DataError(
                f"{self.path}: cannot be written: {reason}; free some space and start again"
            ) from error

    def _locked(self) -> int:
        """A lock that ends with this process, however it ends."""
        if fcntl is None:
            raise DataError(
                f"{self.path}: this system has no file locks; run `energyad watch` on Linux or macOS"
            )
        handle = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.read(handle, 40).decode(errors="replace").strip()
            os.close(handle)
            raise DataError(
                f"{self.path}: another watcher (process {other}) writes it; stop that one or give another --out"
            ) from None
        os.truncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        return handle

    def _cut_torn_line(self) -> None:
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.ftruncate(self._file, content.rfind(b"\n") + 1)
            os.fsync(self._file)

    def _sync_folder(self) -> None:
        """The file's name is on the disk too."""
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
