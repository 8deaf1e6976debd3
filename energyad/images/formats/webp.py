"""WebP: chunks are read here; OpenCV (libwebp) decodes the first image alone, in a fourth of Pillow's memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import cv2

from energyad.images.formats.ifd import exif_orientation
from energyad.images.formats.raw import (
    MAX_FRAMES,
    RawImage,
    damaged,
    decode_opencv,
    excessive,
    require,
    unsupported,
)

MAX_CHUNKS: Final = 4096
_ALPHA_FLAG: Final = 0x10


@dataclass(frozen=True)
class WebpImage:
    """A WebP whose chunks are whole. `plain` is a file of its first image."""

    width: int
    height: int
    orientation: int
    plain: bytes

    def decode(self) -> RawImage:
        """Decode to RGB, or RGBA where the file has an alpha channel."""
        pixels = decode_opencv(self.plain, cv2.IMREAD_UNCHANGED)
        require(pixels.shape[:2] == (self.height, self.width))
        return RawImage(pixels, 255, lossy=True)


def parse(data: bytes) -> WebpImage:
    """Walk the chunks and find the first image.

    Raises:
        ImageError: a chunk is cut off, the sizes contradict each other, or there are too many chunks or frames.
    """
    size = 8 + struct.unpack_from("<I", data, 4)[0]
    require(12 <= size <= len(data))
    canvas: tuple[int, int] | None = None
    image: dict[bytes, bytes] = {}
    orientation, frames = 1, 0
    for name, start, end in _chunks(data, 12, size):
        if name == b"VP8X":
            require(end - start >= 10)
            canvas = (1 + _uint24(data, start + 4), 1 + _uint24(data, start + 7))
        elif name == b"ANMF":
            frames += 1
            if frames == 1:
                image = _first_frame(data, start, end, canvas)
        elif name == b"EXIF" and orientation == 1:
            orientation = exif_orientation(data[start:end])
        elif name in {b"ALPH", b"VP8 ", b"VP8L"} and not frames:
            image.setdefault(name, data[start:end])
    if frames > MAX_FRAMES:
        raise excessive(f"{frames:,} frames")
    width, height, plain = _plain(image)
    require(canvas is None or canvas == (width, height))
    return WebpImage(width, height, orientation, plain)


def _chunks(data: bytes, position: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    for _ in range(MAX_CHUNKS):
        if position + 8 > size:
            return
        name, length = struct.unpack_from("<4sI", data, position)
        start, end = position + 8, position + 8 + length
        require(end <= size)
        yield name, start, end
        position = end + length % 2
    raise excessive(f"over {MAX_CHUNKS:,} chunks")


def _first_frame(data: bytes, start: int, end: int, canvas: tuple[int, int] | None) -> dict[bytes, bytes]:
    require(end - start >= 16)
    x, y, width, height = (_uint24(data, start + offset) for offset in (0, 3, 6, 9))
    if (x, y) != (0, 0) or canvas != (width + 1, height + 1):
        raise unsupported("animated WebP whose first frame is only a part", "save one frame as PNG")
    frame: dict[bytes, bytes] = {}
    for name, first, last in _chunks(data, start + 16, end):
        frame.setdefault(name, data[first:last])
    return frame


def _plain(image: dict[bytes, bytes]) -> tuple[int, int, bytes]:
    """Size, and a file of the one image."""
    lossless, lossy, alpha = image.get(b"VP8L"), image.get(b"VP8 "), image.get(b"ALPH")
    if lossless is not None:
        require(lossy is None and len(lossless) >= 5 and lossless[0] == 0x2F)
        packed = struct.unpack_from("<I", lossless, 1)[0]
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF), _riff(_chunk(b"VP8L", lossless))
    if lossy is None or len(lossy) < 10 or lossy[3:6] != b"\x9d\x01\x2a":
        raise damaged()
    width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", lossy, 6))
    require(width > 0 and height > 0)
    chunks = _chunk(b"VP8 ", lossy)
    if alpha is not None:
        sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        extended = _chunk(b"VP8X", bytes([_ALPHA_FLAG, 0, 0, 0]) + sides)
        chunks = extended + _chunk(b"ALPH", alpha) + chunks
    return width, height, _riff(chunks)


def _riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _uint24(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 3], "little")
