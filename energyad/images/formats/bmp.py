"""BMP: the header is checked here; Pillow decodes."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import BmpImagePlugin

from energyad.images.formats.raw import RawImage, require, unsupported

_CORE_HEADER: Final = 12
_PLAIN, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 0, 1, 2, 3, 6


@dataclass(frozen=True)
class BmpImage:
    """A BMP that holds as many bytes of pixels as it announces."""

    width: int
    height: int
    data: bytes
    orientation: int = 1

    def decode(self) -> RawImage:
        """Decode to RGB, or RGBA where the header declares alpha."""
        header = BmpImagePlugin.BmpImageFile(io.BytesIO(self.data))
        require(header.size == (self.width, self.height))
        pixels = np.asarray(header.convert("RGBA" if header.mode == "RGBA" else "RGB"))
        return RawImage(pixels, 255, lossy=False)


def parse(data: bytes) -> BmpImage:
    """Check size, depth and compression against the bytes.

    Raises:
        ImageError: pixels are missing, or the compression is not supported.
    """
    require(len(data) >= 26)
    offset, header = struct.unpack_from("<II", data, 10)
    if header == _CORE_HEADER:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = _PLAIN
    else:
        require(header >= 40 and len(data) >= 54)
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    height = abs(height)
    require(width > 0 and height > 0)
    if compression in {_RLE8, _RLE4}:
        raise unsupported("run-length coded BMP")
    if bits not in {1, 4, 8, 16, 24, 32} or compression not in {_PLAIN, _BITFIELDS, _ALPHA_BITFIELDS}:
        raise unsupported(f"BMP of {bits} bits with compression {compression}")
    require(offset >= 14 + header and offset + (width * bits + 31) // 32 * 4 * height <= len(data))
    return BmpImage(width, height, data)
