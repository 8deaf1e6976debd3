"""Which of the scored images are kept: a share of those that are ok, and no more bytes than the quota."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from energyad.images.finding import is_image
from energyad.line.filing import PRIVATE_NAME
from energyad.station.config import ImagesConfig

GIB: Final = 1 << 30
ORDER: Final = ("ok", "review", "ng", "unreadable", "quarantine")
"""Folders of verdicts, in the order in which their images are given up."""


class KeptImage(NamedTuple):
    """An image in the folder of its verdict; they sort in the order in which they are given up."""

    order: int
    changed_ns: int
    size: int
    path: str


class ImageKeeper:
    """Removes images that are not to be kept, from the folder that scored images are moved to.

    Args:
        config: The folder, the share and the quota.
    """

    def __init__(self, config: ImagesConfig) -> None:
        self._config = config
        self._looking: Iterator[bool] = iter(())
        self.num_removed = 0

    def look_at(self, count: int) -> bool:
        """Go on with a look at all images, and remove what is not to be kept.

        A look at a hundred thousand images at once would hold up the parts that are scored meanwhile.

        Args:
            count: Images to look at now.

        Returns:
            Whether the look has ended; the next call begins another one.
        """
        looked = sum(1 for _ in itertools.islice(self._looking, count))
        if looked == count:
            return False
        self._looking = self._look()
        return True

    def tidy(self) -> int:
        """Look at all images at once; returns how many were removed."""
        before = self.num_removed
        for _ in self._look():
            pass
        return self.num_removed - before

    def _look(self) -> Iterator[bool]:
        """Remove ok images that are not of the chosen share, then the first to be given up; one step an image."""
        kept: list[KeptImage] = []
        total = 0
        for order, verdict in enumerate(ORDER):
            for entry in _images_below(self._config.folder / verdict):
                yield True
                if verdict == "ok" and not self._is_chosen(Path(entry.path)):
                    self._remove(entry.path)
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    kept.append(KeptImage(order, status.st_mtime_ns, status.st_size, entry.path))
                    total += status.st_size
        if self._config.quota_gib is None or total <= self._config.quota_gib * GIB:
            return
        for image in sorted(kept):
            if total <= self._config.quota_gib * GIB:
                return
            total -= image.size
            self._remove(image.path)
            yield True

    def _is_chosen(self, path: Path) -> bool:
        """Whether an ok image is of the share that is kept: by its name, so that each look says the same."""
        name = path.relative_to(self._config.folder).as_posix()
        number = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")
        return number < self._config.ok_share * 2**64

    def _remove(self, path: str) -> None:
        with contextlib.suppress(OSError):
            Path(path).unlink()
            self.num_removed += 1


def _images_below(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Image files of a folder and the folders in it, as they come; no more of a folder that cannot be read."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _images_below(Path(entry.path))
            elif is_image(Path(entry.name)) and not PRIVATE_NAME.fullmatch(entry.name):
                yield entry
