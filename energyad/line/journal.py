"""Results as a line keeps them: one JSON object an image, in a results file and in the line's database.

Each is an `ImageResult` with three fields more: which file it was, when, and what its pixels looked like (for telling
drift). Lines that `energyad score --json` printed can be read too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from energyad.errors import DataError, first_validation_error, os_reason
from energyad.line.drift import WINDOW, Drift, compare
from energyad.model.folder import graph_file
from energyad.model.manifest import Manifest
from energyad.model.statistics import PartStatistics
from energyad.scoring.results import ImageResult

_SQLITE_HEADER: Final = b"SQLite format 3\0"


class FileSeen(BaseModel):
    """One state of one file. Another size, time of change or content is another file."""

    model_config = ConfigDict(frozen=True)

    path: str = Field(description="below the watched folder, with /")
    size: int
    mtime_ns: int
    sha256: str | None = Field(default=None, description="of its content, hexadecimal")


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


def is_database(location: str | Path) -> bool:
    """Whether this names a database: a URL, or a file that begins as SQLite's do."""
    if "://" in str(location):
        return True
    with contextlib.suppress(OSError), Path(location).open("rb") as file:
        return file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER
    return False


def read_results(location: str | Path) -> list[JournalLine]:
    """All results of a results file or of a line's database, oldest first.

    Raises:
        DataError: It cannot be read, or a line is no result.
    """
    if not is_database(location):
        return read_journal(location)
    from sqlalchemy import select  # not needed for files

    from energyad.line.database import Database
    from energyad.line.tables import Result

    with Database(location, create=False) as database, database.read() as session:
        lines = session.scalars(select(Result.line).order_by(Result.id).execution_options(yield_per=1000))
        return [_line(database.name, number, line.encode()) for number, line in enumerate(lines, start=1)]


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


def drift_of_results(location: str | Path, manifest: Manifest, *, window: int = WINDOW) -> Drift:
    """Drift of the latest parts of a results file, or of a line's database, from which those alone are read.

    Raises:
        DataError: It cannot be read, or none of its results is of this model.
    """
    if not is_database(location):
        return drift_of(read_journal(location), manifest, window=window, source=str(location))
    from energyad.line.database import Database
    from energyad.line.latest import latest_parts_of

    with Database(location, create=False) as database, database.read() as session:
        parts = latest_parts_of(session, manifest.files.get(graph_file(manifest)), window=window)
    if not parts:
        raise DataError(f"{database.name}: no results of this {manifest.name}; give another --model")
    return compare(manifest.good_parts, parts, model=manifest.name)


def drift_of(
    lines: Sequence[JournalLine], manifest: Manifest, *, window: int = WINDOW, source: str = "the results"
) -> Drift:
    """Drift of the latest parts of a results file. source: what errors call it. Raises DataError where none of its
    lines is of this model.
    """
    of_model = _own(lines, manifest)
    if lines and not of_model:
        raise DataError(
            f"{source}: results of {lines[-1].model.name}, not of this {manifest.name}; give its --model"
        )
    return compare(manifest.good_parts, latest_parts(of_model, manifest, window=window), model=manifest.name)


def latest_parts(
    lines: Sequence[JournalLine], manifest: Manifest, *, window: int = WINDOW
) -> list[PartStatistics]:
    """The latest parts that this model's scorer saw, before and after a calibration; of another they are no match."""
    parts = [line.observation for line in _own(lines, manifest)]
    return [part for part in parts if part is not None][-window:]


def _own(lines: Sequence[JournalLine], manifest: Manifest) -> list[JournalLine]:
    graph = manifest.files.get(graph_file(manifest))
    return [line for line in lines if line.model.sha256 == graph]
