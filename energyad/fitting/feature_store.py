"""Storage of the features of many good images until training: in memory, or on the disk beyond a size."""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import Float16

from energyad.errors import DataError, os_reason
from energyad.files import cache_folder

IN_MEMORY = 512 * 2**20
"""Bytes up to which features stay in memory; the disk pays only beyond, where extracting takes minutes as well."""
BYTES_PER_IMAGE = 2**18
"""About what an image's features take at the default settings. Decides for the disk before any is extracted."""
LOCK_SUFFIX = ".lock"
STALE_SECONDS = 7 * 24 * 3600
"""Seconds after which features of a fit that was never taken up again are deleted."""


class FeatureStore(Protocol):
    """Features by image, appended in the order of the images.

    Attributes:
        next_index: The first image that is not stored yet.
    """

    next_index: int

    def append(self, indices: Sequence[int], features: Sequence[Float16[np.ndarray, "*shape"]]) -> None:
        """Add the features of images, and their indices in the sequence that was given."""
        ...

    def finish(self) -> tuple[Float16[np.ndarray, "n *shape"], tuple[int, ...]]:
        """Return all features and their indices."""
        ...

    def discard(self) -> None:
        """Free what the features take."""
        ...


def open_feature_store(
    good_images: Sequence[Any], *, key: tuple[Any, ...], limit: int = IN_MEMORY
) -> FeatureStore:
    """Open memory for few images; for many the disk, with what an interrupted fit of the same files left there.

    Args:
        good_images: Whose features are to be stored.
        key: All that the features depend on besides the images.
        limit: Bytes that memory may take.

    Raises:
        DataError: Where the disk cannot be written.
    """
    remove_stale()
    if len(good_images) * BYTES_PER_IMAGE <= limit:
        return MemoryFeatureStore()
    folder = _folder() / _identity(good_images, key)
    lock = _lock(folder)
    if (
        lock is None
    ):  # another fit of the same images is writing there, so this one begins anew in a place of its own
        folder = folder.with_name(f"{folder.name}-{uuid.uuid4().hex[:8]}")
        lock = _lock(folder)
    return DiskFeatureStore(folder, lock)


def release(features: Float16[np.ndarray, "n *shape"]) -> None:
    """Give back the memory of features on the disk that were read. They are read again when they are used again.

    The system would take it itself where memory is short; until then it counts as this process's.
    """
    if isinstance(features, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        features._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class MemoryFeatureStore:
    """A `FeatureStore` in memory."""

    def __init__(self) -> None:
        self.next_index = 0
        self._indices: list[int] = []
        self._features: list[Float16[np.ndarray, "*shape"]] = []

    def append(self, indices: Sequence[int], features: Sequence[Float16[np.ndarray, "*shape"]]) -> None:
        """Add the features of images. See `FeatureStore.append`."""
        self._indices += indices
        self._features += features

    def finish(self) -> tuple[Float16[np.ndarray, "n *shape"], tuple[int, ...]]:
        """Return all features and their indices."""
        features = np.stack(self._features) if self._features else np.empty((0, 0, 0, 0, 0), np.float16)
        self._features = []
        return features, tuple(self._indices)

    def discard(self) -> None:
        """Do nothing: memory goes with its last user."""


class DiskFeatureStore:
    """A `FeatureStore` in a file, from which an interrupted fit resumes.

    The features of an image count once its index is written, which is after the features themselves.

    Args:
        folder: Made where it does not exist.
        lock: Held until the features are discarded, so that no other fit writes into the folder. The system frees it
            where the process is killed.

    Raises:
        DataError: Where the folder cannot be written.
    """

    def __init__(self, folder: Path, lock: FileLock | None = None) -> None:
        self.folder = folder
        self._held_lock = lock
        self._file, self._list = folder / "features.f16", folder / "indices.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._shape, self._indices = self._resume()
        except OSError as error:
            raise self._failure(error) from error
        self.next_index = self._indices[-1] + 1 if self._indices else 0

    def append(self, indices: Sequence[int], features: Sequence[Float16[np.ndarray, "*shape"]]) -> None:
        """Add the features of images. Raises DataError where the disk is full."""
        self._shape = features[0].shape
        lines = "".join(json.dumps([index, *self._shape]) + "\n" for index in indices)
        try:
            with self._file.open("ab") as file:
                file.write(np.stack(features).tobytes())
            with self._list.open("a", encoding="utf-8") as text:
                text.write(lines)
        except OSError as error:
            raise self._failure(error) from error
        self._indices += indices

    def finish(self) -> tuple[Float16[np.ndarray, "n *shape"], tuple[int, ...]]:
        """Return all features, mapped and read-only, and their indices."""
        if not self._indices:
            return np.empty((0, 0, 0, 0, 0), np.float16), ()
        shape = (len(self._indices), *self._shape)
        return np.memmap(self._file, np.float16, mode="r", shape=shape), tuple(self._indices)

    def discard(self) -> None:
        """Delete the files. Features that are still mapped stay readable where the system allows it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._held_lock is not None:
            self._held_lock.release()

    def _resume(self) -> tuple[tuple[int, ...], list[int]]:
        """Read what an interrupted fit wrote. Half an image or half a line at the end is cut off."""
        indices, shape = [], tuple[int, ...]()
        if self._list.is_file() and self._file.is_file():
            for line in self._list.read_text(encoding="utf-8").splitlines():
                try:
                    index, *sizes = json.loads(line)
                except ValueError:
                    break
                indices.append(int(index))
                shape = tuple(sizes)
        size = 2 * int(np.prod(shape)) if shape else 0
        if size and self._file.stat().st_size < size * len(indices):
            indices = indices[: self._file.stat().st_size // size]
        with self._file.open("ab") as file:
            file.truncate(size * len(indices))
        self._list.write_text(
            "".join(json.dumps([index, *shape]) + "\n" for index in indices), encoding="utf-8"
        )
        return shape, indices

    def _failure(self, error: OSError) -> DataError:
        reason = os_reason(error)
        return DataError(
            f"{self.folder}: features cannot be stored there: {reason}; set ENERGYAD_CACHE to a roomy disk"
        )


def remove_stale() -> None:
    """Delete features that no fit has added to for a week."""
    for path in _folder().glob("*"):
        with contextlib.suppress(OSError):  # another process may be removing it as well
            newest = max((file.stat().st_mtime for file in path.glob("*")), default=path.stat().st_mtime)
            if time.time() - newest <= STALE_SECONDS:
                continue
            if path.suffix == LOCK_SUFFIX:
                if not path.with_suffix("").exists():
                    path.unlink()
            elif (lock := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                lock.release()


def _lock(folder: Path) -> FileLock | None:
    """Take the lock of a folder for this fit alone; None where another fit has it.

    Raises:
        DataError: Where the folder beside it cannot be written.
    """
    lock = FileLock(folder.with_name(folder.name + LOCK_SUFFIX), thread_local=False)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise DataError(
            f"{folder}: features cannot be stored there: {os_reason(error)}; set ENERGYAD_CACHE to a roomy disk"
        ) from error
    return lock


def _folder() -> Path:
    return cache_folder() / "features"


def _identity(good_images: Sequence[Any], key: tuple[Any, ...]) -> str:
    """Return a hash of the files' paths, sizes and dates, and of the key. Images that are no files get a new one."""
    digest = hashlib.sha256(repr(key).encode())
    for image in good_images:
        if not isinstance(image, str | Path):
            digest.update(repr(time.time_ns()).encode())
            break
        try:
            status = Path(image).stat()
            facts = (str(Path(image).absolute()), status.st_size, status.st_mtime_ns)
        except OSError:
            facts = (str(Path(image).absolute()), -1, -1)
        digest.update(repr(facts).encode())
    return digest.hexdigest()[:32]
