"""Files that appear whole or not at all, and where those are kept that can be made again."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from energyad.errors import DataError, os_reason

CACHE_VARIABLE = "ENERGYAD_CACHE"


class NotRegularError(OSError):
    """A pipe, a device or a socket where a file was expected."""


@contextlib.contextmanager
def open_regular(path: str | Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading. A pipe is not waited for, and a device is not read.

    Raises:
        NotRegularError: It is no regular file.
        OSError: It cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotRegularError(errno.EINVAL, "is no regular file")
    except OSError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file:
        yield file


def atomic_write(path: str | Path, content: bytes | str) -> Path:
    """Write a file under a temporary name beside its place and rename it; text is UTF-8.

    A reader sees the old file or the new one. Raises DataError where it cannot be written.
    """
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        return Path(temporary).replace(target)
    except OSError as error:
        reason = os_reason(error)
        message = f"{target}: cannot be written: {reason}; check the folder and the space left"
        raise DataError(message) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def cache_folder() -> Path:
    """$ENERGYAD_CACHE, else energyad/ in $XDG_CACHE_HOME or ~/.cache."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "energyad"
