"""PNG: chunks and checksums are read here; OpenCV (libpng) decodes a file of header and pixel data alone."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt

from energyad.images.formats.ifd import exif_orientation
from energyad.images.formats.raw import (
    MAX_FRAMES,
    RawImage,
    damaged,
    decode_opencv,
    excessive,
    require,
)

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS: Final = 65_536
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_DEPTHS: Final = {
    _GREY: (1, 2, 4, 8, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _RGBA: (8, 16),
}


@dataclass(frozen=True)
class PngImage:
    """A PNG whose chunks are whole and whose checksums hold. `coded` is its chunks of pixel data."""

    width: int
    height: int
    bits: int
    colour: int
    interlaced: int
    palette: bytes | None
    transparency: bytes | None
    orientation: int
    coded: bytes

    def decode(self) -> RawImage:
        """Decode by libpng, which refuses pixel data that ends early; palette and colour key are applied here."""
        # A palette's indices are decoded as grey.
        colour = _GREY if self.colour == _PALETTE else self.colour
        header = struct.pack(">IIBBBBB", self.width, self.height, self.bits, colour, 0, 0, self.interlaced)
        plain = b"".join((SIGNATURE, _chunk(b"IHDR", header), self.coded, _chunk(b"IEND", b"")))
        pixels = decode_opencv(plain, cv2.IMREAD_UNCHANGED)
        if self.colour == _PALETTE:
            pixels = self._coloured(pixels[:, :, 0])
        elif self.transparency is not None:
            pixels = self._keyed(pixels)
        white = 65535 if pixels.dtype == np.uint16 else 255
        return RawImage(pixels, white, lossy=False)

    def _coloured(self, grey: UInt[np.ndarray, "h w"]) -> UInt[np.ndarray, "h w c"]:
        if self.palette is None:
            raise damaged()
        colours = np.frombuffer(self.palette, np.uint8).reshape(-1, 3)
        indices = grey if self.bits == 8 else grey // np.uint8(255 // (2**self.bits - 1))
        require(int(indices.max()) < len(colours))
        if self.transparency is not None:
            alpha = np.full((len(colours), 1), 255, np.uint8)
            alpha[: len(self.transparency), 0] = np.frombuffer(self.transparency, np.uint8)[: len(colours)]
            colours = np.hstack([colours, alpha])
        return colours[indices]

    def _keyed(self, pixels: UInt[np.ndarray, "h w c"]) -> UInt[np.ndarray, "h w 4"]:
        """Make the one colour that the file declares transparent so."""
        channels = pixels.shape[2]
        require(self.transparency is not None and len(self.transparency) == 2 * channels)
        key = np.frombuffer(self.transparency or b"", ">u2").astype(np.uint32)
        if self.bits < 8:
            key = key * (255 // (2**self.bits - 1))
        white = np.iinfo(pixels.dtype).max
        opaque = (pixels != key).any(axis=2, keepdims=True).astype(pixels.dtype) * white
        colour = pixels if channels == 3 else np.repeat(pixels, 3, axis=2)
        return np.concatenate([colour, opaque], axis=2)


def parse(data: bytes) -> PngImage:
    """Walk all chunks and their checksums: 0.1 ms for 300 kB.

    Raises:
        ImageError: a chunk is cut off, altered, out of order, or there are too many.
    """
    chunks, coded = _chunks(data)
    header = chunks.get(b"IHDR", b"")
    require(len(header) == 13 and bool(coded))
    width, height, bits, colour, compression, filtering, interlaced = struct.unpack(">IIBBBBB", header)
    require(width > 0 and height > 0 and bits in _DEPTHS.get(colour, ()))
    require(compression == 0 and filtering == 0 and interlaced in {0, 1})
    palette = chunks.get(b"PLTE")
    require(palette is None or (len(palette) % 3 == 0 and 3 <= len(palette) <= 768))
    with_alpha = colour in {_GREY_ALPHA, _RGBA}
    return PngImage(
        width,
        height,
        bits,
        colour,
        interlaced,
        palette,
        None if with_alpha else chunks.get(b"tRNS"),
        exif_orientation(chunks.get(b"eXIf", b"")),
        coded,
    )


def _chunks(data: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """The first chunk of each kind that is read, and the chunks of pixel data."""
    view, position, previous = memoryview(data), len(SIGNATURE), b""
    chunks: dict[bytes, bytes] = {}
    coded: list[memoryview] = []
    announced = frames = 0
    awaits_data = False
    for _ in range(MAX_CHUNKS):
        require(position + 12 <= len(data))
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        require(end <= len(data))
        body = view[position + 8 : end - 4]
        require(zlib.crc32(view[position + 4 : end - 4]) == struct.unpack_from(">I", data, end - 4)[0])
        require((position == len(SIGNATURE)) == (name == b"IHDR"))
        if name == b"IEND":
            require(not awaits_data and frames >= announced)
            return chunks, b"".join(coded)
        if name == b"IDAT":
            require(not coded or previous == b"IDAT")
            coded += [view[position:end]] if length else []
        elif name in {b"IHDR", b"PLTE", b"tRNS", b"eXIf"}:
            chunks.setdefault(name, bytes(body))
        elif name == b"acTL":
            require(length == 8)
            announced = struct.unpack(">I", body[:4])[0]
        if name == b"fcTL":
            require(not awaits_data)
            awaits_data, frames = True, frames + 1
        elif name in {b"IDAT", b"fdAT"} and length:
            awaits_data = False
        if max(frames, announced) > MAX_FRAMES:
            raise excessive(f"{max(frames, announced):,} frames")
        position, previous = end, name
    raise excessive(f"over {MAX_CHUNKS:,} chunks")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
