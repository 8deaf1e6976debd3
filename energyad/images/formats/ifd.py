"""The first directory of tags of a TIFF file or an EXIF block."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from energyad.errors import ImageError
from energyad.images.formats.raw import damaged, excessive, require

ORIENTATION: Final = 274
MAX_TAGS: Final = 4096
MAX_VALUES: Final = 200_000
# BYTE, ASCII, SHORT, LONG, UNDEFINED, LONG8: the types of the tags that are read.
_TYPES: Final = {1: "u1", 2: "u1", 3: "u2", 4: "u4", 7: "u1", 16: "u8"}


@dataclass(frozen=True)
class Directory:
    """Values by tag. `order` is `<` or `>`, as numpy and struct write it."""

    order: str
    tags: dict[int, list[int]]

    def value(self, tag: int, default: int) -> int:
        """The first value of a tag, or the default where the tag is absent."""
        return self.tags.get(tag, [default])[0]


def read_directory(data: bytes, wanted: Collection[int]) -> Directory:
    """Read the wanted tags of the first directory of a TIFF or BigTIFF structure.

    Args:
        data: the structure; offsets count from its first byte.
        wanted: numbers of the tags to read. Others cost nothing.

    Raises:
        ImageError: the directory or a wanted value lies beyond the data, or holds more than the limits.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        raise damaged()
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    position = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    count_format, entry_format = (order + "Q", order + "HHQ") if big else (order + "H", order + "HHI")
    entry_size, inline = (20, 8) if big else (12, 4)
    start = position + struct.calcsize(count_format)
    require(start <= len(data))
    count = struct.unpack_from(count_format, data, position)[0]
    if count > MAX_TAGS:
        raise excessive(f"{count:,} tags")
    require(start + count * entry_size <= len(data))
    tags: dict[int, list[int]] = {}
    for entry in range(start, start + count * entry_size, entry_size):
        tag, kind, number = struct.unpack_from(entry_format, data, entry)
        if tag in wanted and tag not in tags:
            offset = entry + entry_size - inline
            tags[tag] = _values(data, order, kind, number, offset, inline)
    return Directory(order, tags)


def _values(data: bytes, order: str, kind: int, number: int, offset: int, inline: int) -> list[int]:
    require(kind in _TYPES and number > 0)
    if number > MAX_VALUES:
        raise excessive(f"a tag of {number:,} values")
    size = number * int(_TYPES[kind][1])
    if size > inline:
        offset = struct.unpack_from(order + ("Q" if inline == 8 else "I"), data, offset)[0]
    require(offset + size <= len(data))
    return np.frombuffer(data, order + _TYPES[kind], number, offset).tolist()


def exif_orientation(block: bytes) -> int:
    """The orientation that an EXIF block states; 1 where it is damaged, which costs no pixel."""
    try:
        orientation = read_directory(block.removeprefix(b"Exif\0\0"), {ORIENTATION}).value(ORIENTATION, 1)
    except (ImageError, struct.error):
        return 1
    return orientation if 1 <= orientation <= 8 else 1
