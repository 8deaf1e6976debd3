"""Where the features of many good images wait for their training: in memory, or on the disk past a size."""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float16

from energyad.errors import DataError, os_reason
from energyad.files import cache_folder

IN_MEMORY = 512 * 2**20
"""Bytes up to which features stay in memory; the disk pays only beyond, where extracting takes minutes as well."""
BYTES_PER_IMAGE = 2**18
"""About what an image's features take at the default settings: tells sets worth the disk before one is extracted."""
STALE_SECONDS = 7 * 24 * 3600
"""Seconds after which features of a fit that was never taken up again are deleted."""


class FeatureStore(Protocol):
    """Features by image, appended in the order of the images."""

    next_place: int

    def append(self, places: Sequence[int], rows: Sequence[Float16[np.ndarray, "*shape"]]) -> None:
        """Add images and the places they have in the given sequence."""
        ...

    def finish(self) -> tuple[Float16[np.ndarray, "n *shape"], tuple[int, ...]]:
        """All rows and their places."""
        ...

    def discard(self) -> None:
        """Free what they take."""
        ...


def open_feature_store(
    good_images: Sequence[Any], *, key: tuple[Any, ...], limit: int = IN_MEMORY
) -> FeatureStore:
    """Memory for few images; for many the disk, with what an interrupted fit of the same files left there.

    key: all that the features depend on besides the images. limit: bytes that memory may take.
    """
    remove_stale()
    if len(good_images) * BYTES_PER_IMAGE <= limit:
        return MemoryFeatureStore()
    return DiskFeatureStore(_folder() / _identity(good_images, key))


def release(features: Float16[np.ndarray, "n *shape"]) -> None:
    """Give back the pages of rows on the disk that were read; they are read again where they are asked for again.

    The system would take them itself where memory is short; until then they count as this process's.
    """
    if isinstance(features, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
        features._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class MemoryFeatureStore:
    """FeatureStore in memory."""

    def __init__(self) -> None:
        self.next_place = 0
        self._places: list[int] = []
        self._rows: list[Float16[np.ndarray, "*shape"]] = []

    def append(self, places: Sequence[int], rows: Sequence[Float16[np.ndarray, "*shape"]]) -> None:
        """Add images."""
        self._places += places
        self._rows += rows

    def finish(self) -> tuple[Float16[np.ndarray, "n *shape"], tuple[int, ...]]:
        """All rows and their places."""
        features = np.stack(self._rows) if self._rows else np.empty((0, 0, 0, 0), np.float16)
        self._rows = []
        return features, tuple(self._places)

    def discard(self) -> None:
        """Nothing to do: memory goes with its last user."""


class DiskFeatureStore:
    """FeatureStore in a file. A row counts once its place is written, which is after the row itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._features, self._list = folder / "features.f16", folder / "places.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._shape, self._places = self._resume()
        except OSError as error:
            raise self._failure(error) from error
        self.next_place = self._places[-1] + 1 if self._places else 0

    def append(self, places: Sequence[int], rows: Sequence[Float16[np.ndarray, "*shape"]]) -> None:
        """Add images. Raises DataError where the disk is full."""
        self._shape = rows[0].shape
        lines = "".join(json.dumps([place, *self._shape]) + "\n" for place in places)
        try:
            with self._features.open("ab") as file:
                file.write(np.stack(rows).tobytes())
            with self._list.open("a", encoding="utf-8") as text:
                text.write(lines)
        except OSError as error:
            raise self._failure(error) from error
        self._places += places

    def finish(self) -> tuple[Float16[np.ndarray, "n *shape"], tuple[int, ...]]:
        """All rows, mapped and read-only, and their places."""
        if not self._places:
            return np.empty((0, 0, 0, 0), np.float16), ()
        shape = (len(self._places), *self._shape)
        return np.memmap(self._features, np.float16, mode="r", shape=shape), tuple(self._places)

    def discard(self) -> None:
        """Delete the files; rows that are still mapped stay readable where the system allows it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _resume(self) -> tuple[tuple[int, ...], list[int]]:
        """What an earlier fit wrote whole; half a row or half a line at the end is cut off."""
        places, shape = [], tuple[int, ...]()
        if self._list.is_file() and self._features.is_file():
            for line in self._list.read_text(encoding="utf-8").splitlines():
                try:
                    place, *found = json.loads(line)
                except ValueError:
                    break
                places.append(int(place))
                shape = tuple(found)
        size = 2 * int(np.prod(shape)) if shape else 0
        if size and self._features.stat().st_size < size * len(places):
            places = places[: self._features.stat().st_size // size]
        with self._features.open("ab") as file:
            file.truncate(size * len(places))
        self._list.write_text("".join(json.dumps([p, *shape]) + "\n" for p in places), encoding="utf-8")
        return shape, places

    def _failure(self, error: OSError) -> DataError:
        reason = os_reason(error)
        return DataError(
            f"{self.folder}: features cannot be kept there: {reason}; set ENERGYAD_CACHE to a roomy disk"
        )


def remove_stale() -> None:
    """Delete features that no fit has added to for a week."""
    for folder in _folder().glob("*"):
        newest = max((path.stat().st_mtime for path in folder.glob("*")), default=folder.stat().st_mtime)
        if time.time() - newest > STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    return cache_folder() / "features"


def _identity(good_images: Sequence[Any], key: tuple[Any, ...]) -> str:
    """Changes with any file's place, size or date, and with what is done to it; images that are no files: each time."""
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
