"""The results file: a stream of lines, written behind the database, which decides what is in it.

It is continued exactly where it ended. Where it was removed or emptied, it is written again from its first line; where
it holds what the database does not, that file is set aside under another name.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from energyad.errors import DataError, os_reason
from energyad.line.database import Database, DatabaseUnavailable
from energyad.line.filing import free_name, sync_folder
from energyad.line.tables import Result, Stream

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

CHECK_SECONDS: Final = 1.0
_LINES: Final = 5_000
"""Lines written between two waits for the disk."""


class ResultsFile:
    """Writes a stream's results into its file, in a thread, while the `with` block runs.

    Of several processes with the same file one writes, and the next when that one has ended. A full disk holds up the
    file and nothing else: what is missing follows.

    Args:
        database: Holds the results.
        stream: The stream's row.
        path: The file.
        warn: Called once with each fault.

    Raises:
        DataError: On entering, where the file cannot be written.
    """

    def __init__(
        self, database: Database, stream: int, path: Path, *, warn: Callable[[str], None] = lambda text: None
    ) -> None:
        self.path = path
        self._database, self._stream, self._warn = database, stream, warn
        self._lock = self._file = -1
        self._number = self._size = 0
        self._warned: set[str] = set()
        self._news, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="energyad-results", daemon=True)

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._has_lock():
                self._check()
        except OSError as error:
            self._close()
            reason = os_reason(error)
            raise DataError(f"{self.path}: cannot be written: {reason}; give another --out") from error
        except BaseException:
            self._close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._news.set()
        self._thread.join()
        self._close()

    def tell(self) -> None:
        """There are new results."""
        self._news.set()

    def _run(self) -> None:
        while True:
            is_last = self._stop.is_set()
            self._news.clear()
            try:
                while self._has_lock() and self._write_some():
                    pass
            except OSError as error:
                self._warn_once(
                    f"{self.path}: cannot be written: {os_reason(error)}; what is missing follows"
                )
            except DatabaseUnavailable:  # whoever scores says so
                pass
            except DataError as error:
                self._warn_once(f"{self.path}: waits: {error}")
            if is_last:
                return
            if not self._stop.is_set():
                self._news.wait(CHECK_SECONDS)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    def _write_some(self) -> bool:
        """Write the next results; whether there may be more."""
        self._check()
        with self._database.read() as session:
            rows = self._rows(session, self._number, _LINES)
        if not rows:
            return False
        data = "".join(f"{line}\n" for _, line in rows).encode()
        remaining = memoryview(data)
        while remaining:  # a full disk or a signal may take a part only
            remaining = remaining[os.write(self._file, remaining) :]
        os.fsync(self._file)
        self._advance(rows[-1][0], self._size + len(data))
        return len(rows) == _LINES

    def _rows(self, session: Session, after: int, limit: int) -> list[tuple[int, str]]:
        query = select(Result.number, Result.line).where(
            Result.stream_id == self._stream, Result.number > after
        )
        return [(row[0], row[1]) for row in session.execute(query.order_by(Result.number).limit(limit))]

    def _advance(self, number: int, size: int) -> None:
        with self._database.write(durable=False) as session:  # what the file holds more is found in it
            stream = session.get_one(Stream, self._stream)
            stream.written_number, stream.written_bytes = number, size
        self._number, self._size = number, size

    def _check(self) -> None:
        """Have the file open, in the state that the database knows."""
        if self._file >= 0 and self._is_undisturbed():
            return
        self._close_file()
        with self._database.read() as session:
            stream = session.get_one(Stream, self._stream)
        self._number, self._size = stream.written_number, stream.written_bytes
        self._open()
        size = os.fstat(self._file).st_size
        if size < self._size:
            os.ftruncate(self._file, 0)
            self._advance(0, 0)
        elif not self._is_ours(size):
            aside = free_name(self.path.with_name(f"{self.path.stem}.other{self.path.suffix}"))
            self.path.rename(aside)
            self._warn_once(
                f"{self.path}: was changed by somebody else; it is {aside.name} now, and written again"
            )
            self._close_file()
            self._open()
            self._advance(0, 0)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._file = os.open(self.path, flags, 0o644)
        sync_folder(self.path.parent)

    def _is_undisturbed(self) -> bool:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return False
        opened = os.fstat(self._file)
        return (status.st_dev, status.st_ino, status.st_size) == (opened.st_dev, opened.st_ino, self._size)

    def _is_ours(self, size: int) -> bool:
        """Whether the last noted line is where it should be, and what follows is what would be written next.

        Lines that a killed writer wrote and did not note are noted; one that it left half written is cut off.
        """
        with self._database.read() as session:
            last = self._rows(session, self._number - 1, 1) if self._number else []
            expected = f"{last[0][1]}\n".encode() if last else b""
            if os.pread(self._file, len(expected), self._size - len(expected)) != expected:
                return False
            number, position = self._number, self._size
            while position < size:
                for number_of, line in self._rows(session, number, _LINES) or [(0, "")]:
                    data = f"{line}\n".encode()
                    present = os.pread(self._file, len(data), position)
                    if not number_of or not data.startswith(present):
                        return False
                    if len(present) < len(data):
                        os.ftruncate(self._file, position)
                        size = position
                        break
                    number, position = number_of, position + len(data)
                    if position >= size:
                        break
        if number != self._number:
            self._advance(number, position)
        return True

    def _has_lock(self) -> bool:
        """Whether this process is the one that writes; the lock ends with its holder, however that ends."""
        if fcntl is None:
            raise DataError(
                f"{self.path}: this system has no file locks; run `energyad watch` on Linux or macOS"
            )
        if self._lock >= 0:
            return True
        handle = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._lock = handle
        return True

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._close_file()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1
