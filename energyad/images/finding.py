"""Which files are images: those that are named, and those in folders and globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from energyad.errors import DataError

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """List the images under `sources`: files, folders (searched through, sorted), globs; each image once.

    A file that is named is taken whatever its suffix; folders and globs give the suffixes of `IMAGE_SUFFIXES`
    and skip hidden files and folders. Raises `DataError` for a source that is missing or holds no image.
    """
    found: dict[Path, None] = {}
    for source in sources:
        found.update(dict.fromkeys(_images_of(source)))
    if not found:
        raise DataError("no image was named: give an image, a folder or a glob")
    return list(found)


def _images_of(source: str | Path) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        images = sorted(_walk(path))
        if not images:
            raise DataError(f"{source}: no image in this folder; it should hold {_suffix_list()} files")
        return images
    if not glob.has_magic(str(path)):
        raise DataError(f"{source}: no such file or folder; check the path")
    images = []
    for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207  (an absolute pattern)
        item = Path(match)
        images += sorted(_walk(item)) if item.is_dir() else [item] if _is_image(item) else []
    if not images:
        raise DataError(f"{source}: no image matches this pattern; quote it, and check the folder")
    return images


def _walk(folder: Path) -> Iterator[Path]:
    seen = {folder.resolve()}

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be searched: {(error.strerror or '').lower()}") from error

    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = {name: Path(here, name).resolve() for name in folders}
        folders[:] = [name for name in folders if real[name] not in seen]  # a link may lead back up
        seen.update(real.values())
        yield from (Path(here, name) for name in files if _is_image(Path(here, name)))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _suffix_list() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
