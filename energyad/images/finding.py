"""Which files are images: those that are named, and those in folders and globs."""

from __future__ import annotations

import glob
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from energyad.errors import DataError

IMAGE_SUFFIXES: Final = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp"}
)

OTHER_IMAGE_SUFFIXES: Final = frozenset(
    {
        ".gif",
        ".pgm",
        ".ppm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".j2k",
        ".jxl",
        ".avif",
        ".heic",
        ".heif",
        ".exr",
        ".hdr",
        ".raw",
    }
    | {
        ".dng",
        ".dcm",
        ".ico",
        ".tga",
        ".pcx",
        ".psd",
        ".svg",
        ".npy",
        ".nef",
        ".cr2",
        ".cr3",
        ".arw",
        ".fits",
    }
)
"""Endings of images that are not read; those passed over are counted in a warning."""


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """List the images under `sources`: files, folders (searched through, sorted), globs; each image once.

    A file that is named is taken whatever its ending; folders and globs give the endings of `IMAGE_SUFFIXES` and skip
    hidden files and folders. Links to folders are followed. What else looks like an image, and what is no regular file
    (a pipe, a device), is passed over and counted in one warning.

    Args:
        sources: files, folders or glob patterns.

    Raises:
        DataError: for a source that is missing or holds no image.
    """
    found: dict[Path, None] = {}
    passed_over: Counter[str] = Counter()
    for source in sources:
        found.update(dict.fromkeys(_images_of(source, passed_over)))
    if not found:
        raise DataError("no image was named: give an image, a folder or a glob")
    if passed_over:
        text = f"passed over {_counted(passed_over)}; energyad reads {_suffix_list()}"
        warnings.warn(text, stacklevel=2)
    return list(found)


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image that is searched for: a known ending, not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _images_of(source: str | Path, passed_over: Counter[str]) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        images = sorted(_chosen(_walk(path), passed_over))
        if not images:
            there = f"; it holds {_counted(passed_over)}" if passed_over else ""
            raise DataError(
                f"{source}: no image in this folder{there}; it should hold {_suffix_list()} files"
            )
        return images
    if path.exists():
        raise DataError(f"{source}: no regular file or folder; give an image file")
    if not glob.has_magic(str(path)):
        raise DataError(f"{source}: no such file or folder; check the path")
    images = []
    for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207  (an absolute pattern)
        item = Path(match)
        images += sorted(_chosen(_walk(item) if item.is_dir() else [item], passed_over))
    if not images:
        raise DataError(f"{source}: no image matches this pattern; quote it, and check the folder")
    return images


def _chosen(paths: Iterable[Path], passed_over: Counter[str]) -> Iterator[Path]:
    """The images among these files; what looks like one and is not read is counted."""
    for path in paths:
        ending = path.suffix.lower()
        if path.name.startswith("."):
            continue
        if ending in OTHER_IMAGE_SUFFIXES:
            passed_over[ending] += 1
        elif ending in IMAGE_SUFFIXES:
            if path.is_file():
                yield path
            else:
                passed_over["irregular"] += 1


def _walk(folder: Path) -> Iterator[Path]:
    seen = {folder.resolve()}

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be searched: {(error.strerror or '').lower()}") from error

    for here, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = {name: Path(here, name).resolve() for name in folders}
        folders[:] = [name for name in folders if real[name] not in seen]  # a link may lead back up
        seen.update(real.values())
        yield from (Path(here, name) for name in files)


def _counted(passed_over: Counter[str]) -> str:
    """Such as `7 .gif and 2 .pgm files`."""
    counts = [f"{count} {ending}" for ending, count in sorted(passed_over.items())]
    text = ", ".join(counts[:-1]) + " and " * (len(counts) > 1) + counts[-1]
    return f"{text} files"


def _suffix_list() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
