"""JPEG: segments are read here; OpenCV decodes grey and colour, Pillow CMYK, from what they need alone."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from PIL import JpegImagePlugin

from energyad.images.formats.ifd import exif_orientation
from energyad.images.formats.raw import (
    RawImage,
    damaged,
    decode_opencv,
    excessive,
    require,
    unsupported,
)

MAX_SEGMENTS: Final = 4096
MAX_SCANS: Final = 32
"""Each scan of a progressive file passes over the whole image. Encoders write 10, optimisers up to about 20."""
_SOI, _EOI, _SOS, _DQT, _DHT, _DRI, _DNL = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xDD, 0xDC
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE
_SEQUENTIAL_OR_PROGRESSIVE: Final = {0xC0, 0xC1, 0xC2}
_OTHER_PROCESSES: Final = dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical") | dict.fromkeys(
    (0xC9, 0xCA, 0xCB, 0xCC, 0xCF), "arithmetic-coded"
)
_LOSSLESS: Final = {0xC3: "lossless", 0xC7: "lossless"}
# Inside coded data, FF is followed by 00 (a byte FF), by a restart marker, or by another FF (filling).
_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_FILLING: Final = re.compile(rb"[^\xff]*\xff+")


@dataclass(frozen=True)
class JpegImage:
    """A JPEG whose segments are whole. `plain` is the file without what no decoder needs."""

    width: int
    height: int
    channels: int
    orientation: int
    plain: bytes

    def decode(self) -> RawImage:
        """Decode to grey or RGB."""
        if self.channels == 4:
            header = JpegImagePlugin.JpegImageFile(io.BytesIO(self.plain))
            return RawImage(np.asarray(header.convert("RGB")), 255, lossy=True)
        colour = cv2.IMREAD_GRAYSCALE if self.channels == 1 else cv2.IMREAD_COLOR
        pixels = decode_opencv(self.plain, colour)
        require(pixels.shape[:2] == (self.height, self.width))
        return RawImage(pixels, 255, lossy=True)


def parse(data: bytes, *, tables: bytes = b"", is_ycbcr: bool | None = None) -> JpegImage:
    """Walk the segments up to the end marker; what follows it is ignored.

    Args:
        data: the file.
        tables: segments to put in front, as TIFF keeps them apart.
        is_ycbcr: of three channels, whether they are YCbCr or RGB; None for what the file states.

    Raises:
        ImageError: a segment is cut off, or there are too many segments or scans, or the process is not supported.
    """
    kept = [b"\xff\xd8", tables]
    if is_ycbcr is not None:
        kept.append(b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([is_ycbcr]))
    position, scans, orientation = 2, 0, 1
    frame: tuple[int, int, int] | None = None
    for _ in range(MAX_SEGMENTS):
        filling = _FILLING.match(data, position)
        require(filling is not None and filling.end() < len(data))
        position = filling.end() if filling is not None else position
        marker = data[position]
        if marker == _EOI:
            require(frame is not None and scans > 0)
            width, height, channels = frame or (0, 0, 0)
            return JpegImage(width, height, channels, orientation, b"".join([*kept, b"\xff\xd9"]))
        body, end = _segment(data, position + 1)
        if marker == _SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise excessive(f"over {MAX_SCANS} scans")
            following = _MARKER.search(data, end)
            if following is None:
                raise damaged()
            end = following.start()
        elif marker in _SEQUENTIAL_OR_PROGRESSIVE:
            require(frame is None)
            frame = _frame(body)
        elif marker == _APP1 and body.startswith(b"Exif\0\0") and orientation == 1:
            orientation = exif_orientation(body)
        if _is_needed(marker, body, keep_colour=is_ycbcr is None):
            kept.append(b"\xff" + data[position:end])
        position = end
    raise excessive(f"over {MAX_SEGMENTS:,} segments")


def _segment(data: bytes, position: int) -> tuple[bytes, int]:
    require(position + 2 <= len(data))
    end = position + struct.unpack_from(">H", data, position)[0]
    require(position + 2 <= end <= len(data))
    return data[position + 2 : end], end


def _frame(body: bytes) -> tuple[int, int, int]:
    require(len(body) >= 6)
    precision, height, width, channels = struct.unpack_from(">BHHB", body)
    if precision != 8:
        raise unsupported(f"JPEG with {precision} bits", "save it as 16-bit PNG or TIFF")
    if height == 0:
        raise unsupported("JPEG that states its height after the pixels")
    if channels not in {1, 3, 4}:
        raise unsupported(f"JPEG with {channels} channels")
    require(width > 0 and len(body) >= 6 + 3 * channels)
    return width, height, channels


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
