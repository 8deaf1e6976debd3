"""Tables of all parts for people and spreadsheets: one file a day, kept for a number of days."""

from __future__ import annotations

import csv
import datetime
import io
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from energyad.errors import DataError, MissingExtraError, first_line, os_reason
from energyad.extras import is_installed
from energyad.line.filing import sync_folder
from energyad.line.outbox import Failure, Message
from energyad.scoring.results import as_csv_text
from energyad.station.config import ArchiveConfig
from energyad.station.outputs import Status
from energyad.station.results import PartResult

COLUMNS: Final = (
    "number", "decided", "station", "part", "verdict", "p_value", "reason", "missing", "triggered", "latency", "scores",
    "images",
)  # fmt: skip
_DAY: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.(csv|parquet)")


class ArchiveOutput:
    """Appends each part to the file of its day, which is that of its verdict in UTC.

    A part that is there already is not written again, so each is there once although a delivery may be repeated.

    Args:
        config: Where, how and for how long.
        warn: Called where a day cannot be turned into Parquet.

    Raises:
        MissingExtraError: Parquet is wanted, and pyarrow is not installed.
    """

    kind = "archive"
    linger = 5.0

    def __init__(self, config: ArchiveConfig, *, warn: Callable[[str], None] = lambda text: None) -> None:
        if config.format == "parquet" and not is_installed("pyarrow"):
            raise MissingExtraError('archive.format = parquet needs pyarrow: pip install "energyad[ray]"')
        self._config, self._warn = config, warn
        self.address = str(config.folder)
        self._day = ""

    def start(self) -> None:
        """Make the folder. Raises DataError where that is not possible."""
        try:
            self._config.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{self._config.folder}: cannot be made: {os_reason(error)}; give another archive.folder"
            ) from error

    def send(self, message: Message, stop: threading.Event) -> Failure | None:
        """Append a part."""
        part = PartResult.model_validate_json(message.line)
        day = part.decided[:10]
        try:
            _append(self._config.folder / f"{day}.csv", part)
        except OSError as error:
            return Failure(f"{self._config.folder}: {os_reason(error)}")
        if day != self._day:
            self._day = day
            self._tidy(day)
        return None

    def beat(self, status: Status) -> None:
        """Tables hold parts alone."""

    def stop(self) -> None:
        """Nothing is to be ended."""

    def _tidy(self, today: str) -> None:
        """Remove days that are too old, and make Parquet of those that are over."""
        for path in sorted(self._config.folder.iterdir()):
            match = _DAY.fullmatch(path.name)
            if match is None or match[1] >= today:
                continue
            age = datetime.date.fromisoformat(today) - datetime.date.fromisoformat(match[1])
            if self._config.days is not None and age.days >= self._config.days:
                path.unlink(missing_ok=True)
            elif match[2] == "csv" and self._config.format == "parquet":
                try:
                    _to_parquet(path)
                except Exception as error:  # a table that somebody edited: it stays as it is
                    self._warn(f"{path}: stays CSV: {first_line(error)}")


def _append(path: Path, part: PartResult) -> None:
    """Append a row, on the disk; a last row that was left half written is cut off, and one that is there is kept."""
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - (1 << 20)))
        tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) < len(tail):
            size -= len(tail) - len(whole)
            file.truncate(size)
        lines = whole.splitlines()
        if lines and lines[-1].split(b",", 1)[0] == str(part.number).encode():
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        if size == 0:
            writer.writeheader()
        writer.writerow({name: as_csv_text(value) for name, value in _row(part).items()})
        file.seek(0, os.SEEK_END)
        file.write(text.getvalue().replace("\r", " ").encode())
        file.flush()
        os.fsync(file.fileno())
    if size == 0:
        sync_folder(path.parent)


def _row(part: PartResult) -> dict[str, object]:
    scores = [f"{view.view}={view.result.score:.6g}" for view in part.views if view.result.score is not None]
    images = [f"{view.view}={view.result.image}" for view in part.views]
    return {
        **{name: getattr(part, name, None) for name in COLUMNS},
        "missing": " ".join(part.missing),
        "scores": " ".join(scores),
        "images": " ".join(images),
        "reason": None if part.reason is None else " ".join(part.reason.split()),
    }


def _to_parquet(path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    whole = path.with_suffix(".parquet")
    part = whole.with_name(f".{whole.name}.part")
    pyarrow.parquet.write_table(pyarrow.csv.read_csv(path), part)
    part.replace(whole)
    path.unlink()
