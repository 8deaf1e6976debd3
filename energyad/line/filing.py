"""Moving files so that each is somewhere whole at every moment, under one name, and never over another one."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PRIVATE_NAME: Final = re.compile(r"\.energyad-([0-9a-f]{32})(-.+)?", re.DOTALL)
_MAX_NAME_BYTES: Final = 255
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})


def private_path(path: Path, token: str) -> Path:
    """The name, hidden and beside its own, under which one watcher has a file."""
    prefix = f".energyad-{token}"
    name = f"{prefix}-{path.name}"
    return path.with_name(name if len(os.fsencode(name)) <= _MAX_NAME_BYTES else prefix)


def original_path(private: Path) -> Path | None:
    """The name that a file had before; None where it was too long to be kept."""
    match = PRIVATE_NAME.fullmatch(private.name)
    return None if match is None or not match[2] else private.with_name(match[2][1:])


def is_claimed(path: Path, private: Path) -> bool:
    """Rename a file to its private name; False where somebody else was faster. Raises OSError where it may not be."""
    try:
        path.rename(private)
    except FileNotFoundError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Have names in a folder on the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def free_name(target: Path) -> Path:
    """The target, with as many underscores after its stem as it takes to be the first of that name."""
    while os.path.lexists(target):
        target = target.with_name(f"{target.stem}_{target.suffix}")
    return target


def file_away(source: Path, target: Path, *, token: str) -> Path:
    """Move a file to a target, or beside it where there is another file; returns where it is then.

    It may be called again after it was interrupted at any point. That the names are on the disk is the caller's part.

    Args:
        source: The file. Of a link the content is filed, and the link is removed.
        target: Where it is wanted.
        token: For the name of a copy that is not complete, where the two lie on different file systems.

    Raises:
        FileNotFoundError: The file is gone, and no copy of it was left unfinished.
        OSError: The target cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = target.parent / f".energyad-{token}.part"
    if not source.exists():
        if not copy.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
        return _finished(copy, target)
    moved = None if source.is_symlink() else _moved(source, target)
    if moved is not None:
        return moved
    if not copy.exists() or copy.stat().st_nlink == 1:  # else it was complete, and has its name already
        _copied(source, copy)
    moved = _moved(copy, target, keep=True)
    source.unlink()
    copy.unlink(missing_ok=True)
    return target if moved is None else moved


def _names(target: Path) -> Iterator[Path]:
    while True:
        yield target
        target = target.with_name(f"{target.stem}_{target.suffix}")


def _moved(source: Path, target: Path, *, keep: bool = False) -> Path | None:
    """Where the file was moved to under the first free name; None where that is another file system."""
    for name in _names(target):
        try:
            os.link(source, name)
        except FileExistsError:
            if not _is_same(source, name):
                continue
        except OSError as error:
            if error.errno == errno.EXDEV:
                return None
            if error.errno not in _NO_LINKS:
                raise
            return _renamed(source, free_name(target))
        if not keep:
            source.unlink()
        return name
    return None


def _renamed(source: Path, target: Path) -> Path | None:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno == errno.EXDEV:
            return None
        raise
    return target


def _is_same(first: Path, second: Path) -> bool:
    """Whether two names are of one file, as after a move that was interrupted."""
    with contextlib.suppress(OSError):
        return not second.is_symlink() and os.path.samefile(first, second)  # noqa: PTH121
    return False


def _copied(source: Path, copy: Path) -> None:
    try:
        shutil.copy2(source, copy)
        with copy.open("rb") as file:
            os.fsync(file.fileno())
    except OSError:
        copy.unlink(missing_ok=True)
        raise


def _finished(copy: Path, target: Path) -> Path:
    """The last steps of a copy whose original is gone already."""
    moved = _moved(copy, target)
    return target if moved is None else moved
