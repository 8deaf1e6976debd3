"""Bytes of an image file → pixels, or one clear error: what is damaged is found before anything is decoded.

Each library does what it does better. OpenCV decodes ordinary 8-bit grey and colour files (less than half of
Pillow's time on JPEG) and 16-bit colour, of which Pillow would drop the low byte. Pillow reads headers in
microseconds, and decodes palettes, alpha, CMYK, 1-bit images and 8-bit TIFF. What neither reports reliably in
every supported version, a file cut short, is checked here from the structure of the file.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from jaxtyping import UInt
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from energyad.errors import ImageError, ImageTooLarge

if "OPENCV_LOG_LEVEL" not in os.environ:
    # Its complaints become ImageErrors. OpenCV 5 moved the function; 0 is silent in both.
    (cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)
# Pillow warns of a damaged TIFF directory before it raises. (A local catch_warnings is unsafe in threads.)
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

DEFAULT_MAX_PIXELS: Final = 200_000_000
TRUNCATED: Final = "the file is truncated or damaged; copy it again or leave it out"

# The classes are called directly: Image.open would try every format Pillow knows on hostile bytes, and has a
# size limit of its own. The size is checked here, by `max_pixels`.
_PLUGINS: Final[dict[str, Any]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
_ORIENTATION: Final = 0x0112
_BITS_PER_SAMPLE: Final = 258
_SAMPLE_FORMAT: Final = 339


@dataclass(frozen=True)
class RawImage:
    """Pixels as the file holds them, oriented, channels in RGB order.

    `pixels` is uint8 or uint16 with 1, 3 (RGB) or 4 (RGBA) channels; `white` is the value of full white.
    """

    pixels: UInt[np.ndarray, "h w c"]
    white: int
    lossy: bool


def read_raw(path: Path, *, max_pixels: int) -> RawImage:
    """Read and decode one file; any failure is an `ImageError` that names the file and the remedy."""
    return decode_raw(_read_bytes(path), path, max_pixels=max_pixels)


def decode_raw(data: bytes, path: Path, *, max_pixels: int) -> RawImage:
    """Decode the bytes of one file. The size is checked before anything is decoded; `path` is for errors alone."""
    if not data:
        raise ImageError(path, "the file is empty (0 bytes); copy it again or leave it out")
    kind = _sniff(data)
    if kind is None:
        raise ImageError(path, "not a PNG, JPEG, BMP, TIFF or WebP file, whatever its name says")
    if not _is_complete(kind, data):
        raise ImageError(path, TRUNCATED)
    try:
        header = _PLUGINS[kind](io.BytesIO(data))
    except Exception as error:  # third-party parsers on damaged bytes raise nearly anything
        raise ImageError(path, TRUNCATED) from error
    width, height = header.size
    if width * height > max_pixels:
        reason = f"{width} x {height} pixels is above the limit of {max_pixels:,} (a decompression bomb?)"
        raise ImageTooLarge(path, f"{reason}; make it smaller or raise max_pixels")
    try:
        return _decode(kind, data, header)
    except ImageError as error:
        raise ImageError(path, error.reason) from error
    except Exception as error:  # as above
        raise ImageError(path, TRUNCATED) from error


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(path, "no such file; check the path") from error
    except IsADirectoryError as error:
        raise ImageError(path, "is a folder, not an image") from error
    except OSError as error:
        raise ImageError(path, f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a NUL byte in the name
        raise ImageError(str(path).replace("\0", "\\0"), "not a legal file name") from error
    return data


def _sniff(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    return "BMP" if data.startswith(b"BM") and len(data) >= 26 else None


def _is_complete(kind: str, data: bytes) -> bool:
    """Whether the structure of the file reaches its end. OpenCV 4 fills what is missing with grey."""
    if kind == "PNG":
        return _png_is_whole(data)
    if kind == "JPEG":
        # The end marker cannot occur inside coded data, and a thumbnail's lies before the last scan.
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    if kind == "WebP":
        return len(data) >= 8 + struct.unpack("<I", data[4:8])[0]
    return True  # BMP and TIFF: both decoders refuse a short file


def _png_is_whole(data: bytes) -> bool:
    """Walk the chunks and their checksums: 0.1 ms for 300 kB."""
    view, position = memoryview(data), 8
    while position + 12 <= len(data):
        length, name = struct.unpack(">I4s", view[position : position + 8])
        end = position + 12 + length
        if end > len(data):
            return False
        stored = struct.unpack(">I", view[end - 4 : end])[0]
        if zlib.crc32(view[position + 4 : end - 4]) != stored:
            return False
        if name == b"IEND":
            return True
        position = end
    return False


def _decode(kind: str, data: bytes, header: Image.Image) -> RawImage:
    bits = _bits_per_sample(kind, data, header)
    lossy = kind in {"JPEG", "WebP"}
    if bits == 16:
        pixels = _decode_opencv(data, cv2.IMREAD_UNCHANGED)
        # OpenCV has turned a TIFF by its orientation tag already, even when told not to.
        return RawImage(pixels if kind == "TIFF" else _turn(pixels, _orientation(header)), 65535, lossy)
    if kind != "TIFF" and header.mode in {"L", "RGB"} and "transparency" not in header.info:
        colour = cv2.IMREAD_GRAYSCALE if header.mode == "L" else cv2.IMREAD_COLOR
        pixels = _decode_opencv(data, colour | cv2.IMREAD_IGNORE_ORIENTATION)
        return RawImage(_turn(pixels, _orientation(header)), 255, lossy)
    header.load()  # Pillow turns a TIFF by its orientation tag while loading
    pixels = pillow_pixels(header)
    if kind != "TIFF":
        pixels = _turn(pixels, _orientation(header))
    return RawImage(pixels, 2**bits - 1 if pixels.dtype == np.uint16 else 255, lossy)


def _bits_per_sample(kind: str, data: bytes, header: Image.Image) -> int:
    if kind == "PNG":
        return data[24]
    if kind != "TIFF":
        return 8
    tags = header.tag_v2  # type: ignore[attr-defined]
    bits = max(tags.get(_BITS_PER_SAMPLE, (1,)))
    if bits > 16 or max(tags.get(_SAMPLE_FORMAT, (1,))) != 1:
        reason = f"TIFF with {bits}-bit signed or floating-point samples has no defined white"
        raise ImageError("image", f"{reason}; save it with 8 or 16 bits")
    return bits


def _decode_opencv(data: bytes, flags: int) -> UInt[np.ndarray, "h w c"]:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise ImageError("image", TRUNCATED)
    if decoded.ndim == 2:
        return decoded[:, :, None]
    swap = cv2.COLOR_BGR2RGB if decoded.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(decoded, swap)


def pillow_pixels(image: Image.Image) -> UInt[np.ndarray, "h w c"]:
    """Pixels of any Pillow mode with a defined white: palettes resolved, transparency as a fourth channel."""
    if image.mode in {"I", "F"}:
        raise ImageError("image", f"Pillow mode {image.mode} has no defined white; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[:, :, None]
    alpha = image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if alpha else "RGB"))


def _orientation(header: Image.Image) -> int:
    block = header.info.get("exif")
    if not block:
        return 1
    tags = Image.Exif()
    try:
        tags.load(block)
        return int(tags.get(_ORIENTATION, 1))
    except Exception:  # a damaged EXIF block costs the orientation, not the image
        return 1


def _turn(pixels: UInt[np.ndarray, "a b c"], orientation: int) -> UInt[np.ndarray, "h w c"]:
    """Apply the EXIF orientation tag, 1 to 8: mirrored where even-odd says so, then turned."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
