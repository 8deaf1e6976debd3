"""Folders on any file system that fsspec knows: this machine's, s3://, gs://, az://. Needs the extra `storage`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem

from energyad.errors import DataError, MissingExtraError, first_line
from energyad.files import atomic_write


@dataclass(frozen=True)
class StorageFolder:
    """A folder whose files appear whole or not at all.

    Attributes:
        file_system: fsspec's file system; its listings are not cached.
        path: The folder, without the protocol.

    Example:
        >>> StorageFolder.open("s3://archive/results").write("note.txt", b"...")
    """

    file_system: Any
    path: str

    @classmethod
    def open(cls, url: str | Path) -> Self:
        """Return the folder of a path or URL, which need not exist.

        Raises:
            DataError: The protocol is unknown.
            MissingExtraError: The package of the protocol is not installed.
        """
        file_system, path = file_system_of(str(url))
        return cls(file_system, path)

    @property
    def url(self) -> str:
        """The folder with its protocol, as messages call it; a plain path on this machine."""
        return self.path if self.is_local else str(self.file_system.unstrip_protocol(self.path))

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a disk of this machine."""
        return isinstance(self.file_system, LocalFileSystem)

    def folder(self, name: str) -> StorageFolder:
        """Return a folder inside this one."""
        return StorageFolder(self.file_system, self._full(name))

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            FileNotFoundError: There is none.
            DataError: It cannot be read.
        """
        try:
            return bytes(self.file_system.cat_file(self._full(name)))
        except FileNotFoundError:
            raise
        except Exception as error:  # each file system has errors of its own
            raise DataError(f"{self.url}/{name}: cannot be read ({first_line(error)})") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file: under another name and renamed on a disk, as one object in a store.

        Raises:
            DataError: It cannot be written.
        """
        if self.is_local:
            atomic_write(self._full(name), content)
            return
        try:
            self.file_system.pipe_file(self._full(name), content)
        except Exception as error:  # each file system has errors of its own
            raise DataError(f"{self.url}/{name}: cannot be written ({first_line(error)})") from error

    def size(self, name: str) -> int:
        """Return a file's size in bytes. Raises FileNotFoundError where there is none."""
        return int(self.file_system.size(self._full(name)))

    def names(self, name: str = "") -> set[str]:
        """Return the names of files in a folder inside this one; none where there is no such folder."""
        try:
            listed = self.file_system.ls(self._full(name) if name else self.path, detail=False)
        except FileNotFoundError:
            return set()
        return {path.rstrip("/").rsplit("/", 1)[-1] for path in listed}

    def _full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"


def file_system_of(url: str) -> tuple[Any, str]:
    """Return the file system of a URL or path, and the path on it.

    Raises:
        DataError: The protocol is unknown.
        MissingExtraError: The package of the protocol is not installed.
    """
    try:
        file_system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        raise MissingExtraError(f"{url}: {first_line(error)} (pip install it beside energyad)") from error
    except (ValueError, TypeError) as error:
        raise DataError(f"{url}: {first_line(error)}; give a path, s3://, gs:// or az://") from error
    return file_system, str(path)
