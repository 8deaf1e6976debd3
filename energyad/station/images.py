"""Which of the scored images are kept: a share of those that are ok, and no more bytes than the quota."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from energyad.images.finding import is_image
from energyad.line.filing import PRIVATE_NAME
from energyad.station.config import ImagesConfig

GIB: Final = 1 << 30
ORDER: Final = ("ok", "review", "ng", "unreadable", "quarantine")
"""Folders of verdicts, in the order in which their images are given up."""


@dataclass(frozen=True)
class KeptImage:
    """An image in the folder of its verdict."""

    path: Path
    verdict: str
    size: int
    changed: int


class ImageKeeper:
    """Removes images that are not to be kept, from the folder that scored images are moved to.

    Args:
        config: The folder, the share and the quota.
    """

    def __init__(self, config: ImagesConfig) -> None:
        self._config = config

    def tidy(self) -> int:
        """Remove what is not to be kept; returns how many images that was."""
        kept, removed = [], 0
        for image in self._images():
            if image.verdict == "ok" and not self._is_chosen(image.path):
                removed += _remove(image.path)
            else:
                kept.append(image)
        if self._config.quota_gib is None:
            return removed
        excess = sum(image.size for image in kept) - self._config.quota_gib * GIB
        for image in sorted(kept, key=lambda image: (ORDER.index(image.verdict), image.changed)):
            if excess <= 0:
                break
            excess -= image.size
            removed += _remove(image.path)
        return removed

    def _is_chosen(self, path: Path) -> bool:
        """Whether an ok image is of the share that is kept: by its name, so that each look says the same."""
        name = path.relative_to(self._config.folder).as_posix()
        number = int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")
        return number < self._config.ok_share * 2**64

    def _images(self) -> list[KeptImage]:
        images = []
        for verdict in ORDER:
            for path in sorted((self._config.folder / verdict).rglob("*")):
                if PRIVATE_NAME.fullmatch(path.name) or not is_image(path):
                    continue
                with contextlib.suppress(OSError):
                    status = path.stat()
                    images.append(KeptImage(path, verdict, status.st_size, status.st_mtime_ns))
        return images


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
