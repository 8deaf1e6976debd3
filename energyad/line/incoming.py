"""The files of a watched folder: which are complete, what is in them, and whether somebody still writes."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from energyad.errors import DataError, ImageError, os_reason
from energyad.files import NotRegularError, open_regular
from energyad.images.finding import is_image
from energyad.line.filing import PRIVATE_NAME

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

MAX_OPEN_SECONDS: Final = 60.0
"""How long a file that no longer changes is waited for while a process has it open for writing."""
_BLOCK: Final = 1 << 20
_LOCAL_FILE_SYSTEMS: Final = frozenset(
    {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "vfat", "exfat", "xfs", "zfs"}
)


class NotReady(ImageError):
    """A file changed while it was read, is gone, or is still being written: it is looked at again later."""


@dataclass(frozen=True)
class FileState:
    """One state of one file: its size, when it changed, the hash of its content, and its fingerprint."""

    size: int
    mtime_ns: int
    sha256: str
    fingerprint: str


@dataclass(frozen=True)
class FoundFile:
    """A file as a look found it. renamed: its place is newer than its content, so it was moved here whole."""

    fingerprint: str
    mtime_ns: int
    renamed: bool

    @property
    def changed_ns(self) -> int:
        """When anything of it last changed: its content, its name."""
        return int(self.fingerprint.rpartition(":")[2])


@dataclass(frozen=True)
class Look:
    """What one look found. private: where files lie that some watcher has claimed, by what their names hold."""

    complete: dict[Path, FoundFile]
    private: dict[str, Path]
    is_whole: bool


@dataclass
class Folder:
    """The files of a folder, looked at again and again. Links to folders are followed.

    Attributes:
        folder: Where images arrive.
        leave_out: A folder below that is not looked into.
        is_whole: Whether a file is known to be put there whole.
        warn: Called with what is passed over, once each.
    """

    folder: Path
    leave_out: Path | None = None
    is_whole: Callable[[Path], bool] = lambda path: False
    warn: Callable[[str], None] = lambda text: None
    _before: dict[str, tuple[Path, FoundFile]] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)

    def look(self) -> Look:
        """Find the files that are complete, oldest first: unchanged since the last look, or put into place whole.

        Raises:
            DataError: The folder cannot be listed.
        """
        seen: dict[str, tuple[Path, FoundFile]] = {}
        complete: list[tuple[Path, FoundFile]] = []
        private: dict[str, Path] = {}
        faults: list[OSError] = []
        for here, name in self._files(faults):
            file = os.path.join(here, name)  # noqa: PTH118  (a folder may hold a hundred thousand)
            before = self._before.get(file)
            if before is None and not self._is_image(here, name, private):
                continue
            now = self._found(file, before)
            if now is not None:
                seen[file] = now
                if now is before or now[1].renamed or self.is_whole(now[0]):
                    complete.append(now)
        self._before = seen
        complete.sort(key=lambda item: (item[1].mtime_ns, item[0]))
        return Look(dict(complete), private, is_whole=not faults)

    def warn_once(self, text: str) -> None:
        """Say something the first time only."""
        if text not in self._warned:
            self._warned.add(text)
            self.warn(text)

    @staticmethod
    def _is_image(here: str, name: str, private: dict[str, Path]) -> bool:
        """Whether a file is named as an image is; those that some watcher has claimed are noted instead."""
        match = PRIVATE_NAME.fullmatch(name)
        if match is not None:
            private[match[1]] = Path(here, name)
            return False
        return is_image(Path(name))

    def _found(self, file: str, before: tuple[Path, FoundFile] | None) -> tuple[Path, FoundFile] | None:
        """The file as it is now, the very pair of before where nothing of it changed; None where it is no file."""
        try:
            status = os.stat(file)  # noqa: PTH116
        except OSError as error:
            if os.path.islink(file):  # noqa: PTH114
                self.warn_once(f"{file}: passed over: a link to nothing ({os_reason(error)})")
            return None  # or gone since it was listed
        fingerprint = fingerprint_of(status)
        if before is not None and before[1].fingerprint == fingerprint:
            return before
        if not stat.S_ISREG(status.st_mode):
            self.warn_once(f"{file}: passed over: no regular file; remove it")
            return None
        renamed = status.st_ctime_ns > status.st_mtime_ns
        return Path(file), FoundFile(fingerprint, status.st_mtime_ns, renamed)

    def _files(self, faults: list[OSError]) -> Iterator[tuple[str, str]]:
        """Folder and name of each file."""

        def note(error: OSError) -> None:
            if Path(error.filename) == self.folder:
                reason = os_reason(error)
                raise DataError(f"{self.folder}: cannot be searched: {reason}; check the folder") from error
            faults.append(error)
            self.warn_once(f"{error.filename}: cannot be searched: {os_reason(error)}")

        left_out = None if self.leave_out is None else _identity(self.leave_out)
        seen = {_identity(self.folder), left_out}
        for here, folders, names in os.walk(self.folder, onerror=note, followlinks=True):
            entered = []
            for name in sorted(folders):
                identity = _identity(Path(here, name))
                if not name.startswith(".") and identity not in seen:  # a link may lead back up
                    entered.append(name)
                    seen.add(identity)
            folders[:] = entered
            yield from ((here, name) for name in names)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def fingerprint_of(status: os.stat_result) -> str:
    """Device, inode, size, and the times of the last changes of content and of anything: another one, another state."""
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, parts))


def hash_file(path: Path, *, max_bytes: int) -> FileState:
    """Read a regular file through, in bounded memory; one that is larger than any image is not, and has no hash.

    Raises:
        NotReady: It is gone, is being written, or changed meanwhile.
        ImageError: It cannot be read.
    """
    with _opened(path) as file:
        before = os.fstat(file.fileno())
        if before.st_size > max_bytes:
            return _state(path, file, before, "")
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        return _state(path, file, before, digest.hexdigest())


def read_file(path: Path, sha256: str, *, max_bytes: int) -> bytes:
    """Read a regular file whose content is known.

    Raises:
        NotReady: It is gone or has another content by now.
        ImageError: It cannot be read, or is larger than `max_bytes`.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise ImageError(path, f"{size:,} bytes are more than any image of --max-megapixels has")
        data = file.read(size + 1)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise NotReady(path, "changed while it was worked on")
    return data


def is_written(path: Path) -> bool:
    """Whether a process has the file open for writing; False also where the system cannot tell.

    A lease on a file is granted on Linux only where no process can write it. Network file systems answer by other
    rules, so they are not asked; nor does a file count that has not changed for a minute.
    """
    with contextlib.suppress(OSError, ImageError), _opened(path) as file:  # it may be gone
        status = os.fstat(file.fileno())
        if time.time() - status.st_mtime > MAX_OPEN_SECONDS or not _is_local(status.st_dev):
            return False
        return _has_writer(file.fileno())
    return False


def _has_writer(handle: int) -> bool:
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        fcntl.fcntl(
            handle, fcntl.F_SETSIG, signal.SIGURG
        )  # whoever opens it meanwhile: a signal that does nothing
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # somebody else's file
        return False
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


@functools.lru_cache(maxsize=64)
def _is_local(device: int) -> bool:
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    kinds = {line.rpartition(" - ")[2].split()[0] for line in lines if line.split()[2] == name}
    return bool(kinds) and kinds <= _LOCAL_FILE_SYSTEMS


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open. A pipe that took its place is not waited for."""
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError as error:
        raise NotReady(path, "is gone") from error
    except NotRegularError as error:
        raise NotReady(path, os_reason(error)) from error
    except OSError as error:
        raise ImageError(path, f"cannot be read: {os_reason(error)}") from error


def _state(path: Path, file: BinaryIO, before: os.stat_result, sha256: str) -> FileState:
    after = os.fstat(file.fileno())
    if fingerprint_of(after) != fingerprint_of(before):
        raise NotReady(path, "changed while it was read")
    return FileState(after.st_size, after.st_mtime_ns, sha256, fingerprint_of(after))
