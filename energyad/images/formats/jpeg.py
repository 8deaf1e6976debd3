"""JPEG: segments are read here; Pillow decodes from what it needs of them alone."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import JpegImagePlugin

from energyad.images.formats.ifd import exif_orientation
from energyad.images.formats.jpeg_scans import RESTART, Frame, ScanChecker, parse_frame
from energyad.images.formats.raw import (
    RawImage,
    damaged,
    excessive,
    require,
    unsupported,
)

MAX_SEGMENTS: Final = 4096
MAX_SCANS: Final = 32
"""Each scan of a progressive file passes over the whole image. Encoders write 10, optimisers up to about 20."""
_SOI, _EOI, _SOS, _DQT, _DHT, _DRI, _DNL = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xDC
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_PROGRESSIVE: Final = 0xC2
_SEQUENTIAL_OR_PROGRESSIVE: Final = {0xC0, 0xC1, _PROGRESSIVE}
_OTHER_PROCESSES: Final = dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical") | dict.fromkeys(
    (0xC9, 0xCA, 0xCB, 0xCC, 0xCF), "arithmetic-coded"
)
_LOSSLESS: Final = {0xC3: "lossless", 0xC7: "lossless"}
# Inside coded data, FF is followed by 00 (a byte FF), by a restart marker, or by another FF (filling).
_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_EXTENSION: Final = bytes(1 + (119 * index * index + 178 * index + 180) % 254 for index in range(512))
"""Arbitrary bytes, none of them FF, more than a unit takes. Their first bit is 1; a decoder that lacks bits takes 0."""
_RESTART_EXTENSION: Final = _EXTENSION[:128]
_INTERVAL: Final = re.compile(rb"\xff\xdd\x00\x04(..)", flags=re.DOTALL)
_FILLING: Final = re.compile(rb"[^\xff]*\xff+")


@dataclass(frozen=True)
class JpegImage:
    """A JPEG whose segments are whole.

    Attributes:
        frame: Its frame header.
        orientation: By EXIF, 1 to 8.
        plain: The file without what no decoder needs.
        extended: The same with further bytes behind all coded data.
    """

    frame: Frame
    orientation: int
    plain: bytes
    extended: bytes

    @property
    def width(self) -> int:
        """Columns."""
        return self.frame.width

    @property
    def height(self) -> int:
        """Rows."""
        return self.frame.height

    @property
    def channels(self) -> int:
        """Number of components: 1, 3 or 4."""
        return self.frame.channels

    def decode(self) -> RawImage:
        """Decode to grey or RGB.

        The decoder goes on with zeros where coded data end too early, and says nothing. It never looks at what lies
        behind data that are whole, so pixels that change with what is put there are pixels that the file lacks.
        """
        pixels = self._decode(self.plain)
        require(np.array_equal(pixels, self._decode(self.extended)))
        return RawImage(pixels, 255, lossy=True)

    def _decode(self, data: bytes) -> UInt8[np.ndarray, "h w c"]:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
        pixels = np.asarray(image.convert("RGB") if self.channels == 4 else image)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def parse(data: bytes, *, tables: bytes = b"", is_ycbcr: bool | None = None) -> JpegImage:
    """Walk the segments up to the end marker; what follows it is ignored.

    Args:
        data: the file.
        tables: segments to put in front, as TIFF keeps them apart.
        is_ycbcr: of three channels, whether they are YCbCr or RGB; None for what the file states.

    Raises:
        ImageError: a segment is cut off, coded data are missing, there are too many segments or scans, or the
            process is not supported.
    """
    front = b"\xff\xd8" + tables
    if is_ycbcr is not None:
        front += b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([is_ycbcr])
    walk = _Walk(data, front, keep_colour=is_ycbcr is None)
    position = 2
    for _ in range(MAX_SEGMENTS):
        filling = _FILLING.match(data, position)
        require(filling is not None and filling.end() < len(data))
        position = filling.end() if filling is not None else position
        if data[position] == _EOI:
            return walk.image()
        position = walk.take(position)
    raise excessive(f"over {MAX_SEGMENTS:,} segments")


class _Walk:
    """What was found of a file so far, and the segments that a decoder needs."""

    def __init__(self, data: bytes, front: bytes, *, keep_colour: bool) -> None:
        self._data = data
        self._keep_colour = keep_colour
        self._plain, self._extended = [front], [front]
        self._checker: ScanChecker | None = None
        self._num_scans, self._orientation = 0, 1
        stated = _INTERVAL.search(front)
        self._interval = int.from_bytes(stated[1]) if stated is not None else 0

    def take(self, position: int) -> int:
        """Read the segment whose marker lies here, and return its end."""
        marker = self._data[position]
        body, end = _segment(self._data, position + 1)
        coded = b""
        if marker == _SOS:
            coded = self._scan(body, end)
        elif marker in _SEQUENTIAL_OR_PROGRESSIVE:
            require(self._checker is None)
            self._checker = ScanChecker(parse_frame(body, is_progressive=marker == _PROGRESSIVE))
        elif marker == _DRI:
            require(len(body) >= 2)
            self._interval = struct.unpack_from(">H", body)[0]
        elif marker == _APP1 and body.startswith(b"Exif\0\0") and self._orientation == 1:
            self._orientation = exif_orientation(body)
        if _is_needed(marker, body, keep_colour=self._keep_colour):
            segment = b"\xff" + self._data[position:end]
            self._plain.append(segment + coded)
            self._extended.append(segment + (_extend(coded) if marker == _SOS else b""))
        return end + len(coded)

    def _scan(self, header: bytes, start: int) -> bytes:
        """The coded data of a scan, which begin here."""
        self._num_scans += 1
        if self._num_scans > MAX_SCANS:
            raise excessive(f"over {MAX_SCANS} scans")
        following = _MARKER.search(self._data, start)
        if following is None or self._checker is None:
            raise damaged()
        coded = self._data[start : following.start()]
        self._checker.add(header, coded, interval=self._interval)
        return coded

    def image(self) -> JpegImage:
        """The image, at the end marker."""
        if self._checker is None:
            raise damaged()
        self._checker.require_complete()
        plain, extended = (b"".join([*parts, b"\xff\xd9"]) for parts in (self._plain, self._extended))
        return JpegImage(self._checker.frame, self._orientation, plain, extended)


def _extend(coded: bytes) -> bytes:
    """Put further bytes behind coded data, and before each restart marker."""
    return RESTART.sub(lambda marker: _RESTART_EXTENSION + marker[0], coded).rstrip(b"\xff") + _EXTENSION


def _segment(data: bytes, position: int) -> tuple[bytes, int]:
    require(position + 2 <= len(data))
    end = position + struct.unpack_from(">H", data, position)[0]
    require(position + 2 <= end <= len(data))
    return data[position + 2 : end], end


def _is_needed(marker: int, body: bytes, *, keep_colour: bool) -> bool:
    process = (_OTHER_PROCESSES | _LOSSLESS).get(marker)
    if process is not None:
        raise unsupported(f"{process} JPEG")
    if marker == _DNL:
        raise unsupported("JPEG that states its height after the pixels")
    if marker == _APP0:
        return keep_colour and body.startswith(b"JFIF\0")
    if marker == _APP14:
        return keep_colour and body.startswith(b"Adobe")
    if marker in {_SOS, _DQT, _DHT, _DRI} | _SEQUENTIAL_OR_PROGRESSIVE:
        return True
    # Application data, comments and reserved extensions carry no pixel; anything else has no place here.
    require(0xE0 <= marker <= 0xFE)
    return False
