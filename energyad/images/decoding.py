"""Bytes of an image file → pixels, or one clear error: what is damaged is found before anything is decoded.

No pixel is returned that no byte of the file determined. The structure of each format is read and bounded in
`energyad.images.formats`; a decoder gets the coded pixels in a plain file, and only of the kinds it is trusted with:

- PNG and WebP: OpenCV, which returns nothing where its library reports an error.
- BMP: Pillow, whose images start as zeros, on data that were measured first.
- JPEG: Pillow, twice, with other bytes behind the coded data: where these alter a pixel, the data are short.
- TIFF: strips by libtiff (Pillow) as rows of bytes; their meaning by numpy.

`benchmarks/robustness` decodes damaged files under different fills of fresh memory and compares the pixels.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt
from PIL import Image

from energyad.errors import ImageError, ImageTooLarge
from energyad.files import NotRegularError, open_regular
from energyad.images.formats import bmp, jpeg, png, tiff, webp
from energyad.images.formats.raw import TRUNCATED, EncodedImage, RawImage, turn_upright

if "OPENCV_LOG_LEVEL" not in os.environ:
    # Its complaints become ImageErrors. OpenCV 5 moved the function; 0 is silent in both.
    (cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)

DEFAULT_MAX_PIXELS: Final = 200_000_000
BYTES_PER_PIXEL: Final = 8
HEADER_BYTES: Final = 64 << 20
NO_MEMORY: Final = "there is not enough memory to decode it; make it smaller"


def read_raw(path: Path, *, max_pixels: int) -> RawImage:
    """Read and decode one file, turned upright.

    Raises:
        ImageError: the file cannot be read or decoded; one line that names it and the remedy.
    """
    return decode_raw(_read_bytes(path, max_bytes=largest_file(max_pixels)), path, max_pixels=max_pixels)


def decode_raw(data: bytes, path: Path, *, max_pixels: int) -> RawImage:
    """Decode the bytes of one file, turned upright. The size is checked before any pixel is decoded.

    Args:
        data: the whole file.
        path: what errors call it; nothing is read from there.
        max_pixels: width times height of the largest image that is decoded.

    Raises:
        ImageTooLarge: the image has more pixels.
        ImageError: the bytes are no image, or not whole, or of a kind that is not supported.
    """
    if not data:
        raise ImageError(path, "the file is empty (0 bytes); copy it again or leave it out")
    parse = _parser_of(data)
    if parse is None:
        raise ImageError(path, "not a PNG, JPEG, BMP, TIFF or WebP file, whatever its name says")
    try:
        image = parse(data)
        if image.width * image.height > max_pixels:
            raise ImageTooLarge(path, _too_large(image.width, image.height, max_pixels))
        return _decode(image)
    except ImageTooLarge:
        raise
    except ImageError as error:
        raise ImageError(path, error.reason) from error
    except Exception as error:  # third-party decoders on damaged bytes raise nearly anything
        raise ImageError(path, NO_MEMORY if _is_out_of_memory(error) else TRUNCATED) from error


@contextlib.contextmanager
def memory_errors_named(path: str | Path) -> Iterator[None]:
    """Make running out of memory an ImageError of this file."""
    try:
        yield
    except (MemoryError, cv2.error) as error:
        if not _is_out_of_memory(error):
            raise
        raise ImageError(path, NO_MEMORY) from error


def _decode(image: EncodedImage) -> RawImage:
    raw = image.decode()
    if raw.pixels.shape[:2] != (image.height, image.width):
        raise ImageError("image", TRUNCATED)
    return RawImage(turn_upright(raw.pixels, image.orientation), raw.white, raw.lossy)


def _too_large(width: int, height: int, max_pixels: int) -> str:
    reason = f"{width} x {height} pixels is above the limit of {max_pixels:,} (a decompression bomb?)"
    return f"{reason}; make it smaller or raise max_pixels (--max-megapixels)"


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem
    )


def largest_file(max_pixels: int) -> int:
    """Return the bytes of the largest file that is read: four channels of 16 bits, uncompressed, and its header."""
    return BYTES_PER_PIXEL * max_pixels + HEADER_BYTES


def _read_bytes(path: Path, *, max_bytes: int) -> bytes:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(size) if size <= max_bytes else b""
    except FileNotFoundError as error:
        raise ImageError(path, "no such file; check the path") from error
    except NotRegularError as error:
        what = "is a folder, not an image" if path.is_dir() else "is no regular file; give an image file"
        raise ImageError(path, what) from error
    except OSError as error:
        raise ImageError(path, f"cannot be read: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:  # a NUL byte in the name
        raise ImageError(str(path).replace("\0", "\\0"), "not a legal file name") from error
    if size > max_bytes:
        raise ImageTooLarge(path, f"{size:,} bytes are more than any image of --max-megapixels has")
    return data


def _parser_of(data: bytes) -> Callable[[bytes], EncodedImage] | None:
    if data.startswith(png.SIGNATURE):
        return png.parse
    if data.startswith(b"\xff\xd8\xff"):
        return jpeg.parse
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return tiff.parse
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return webp.parse
    return bmp.parse if data.startswith(b"BM") and len(data) >= 26 else None


def pillow_pixels(image: Image.Image) -> UInt[np.ndarray, "h w c"]:
    """Pixels of any Pillow mode with a defined white: palettes resolved, transparency as a fourth channel."""
    if image.mode in {"I", "F"}:
        raise ImageError("image", f"Pillow mode {image.mode} has no defined white; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)[:, :, None]
    alpha = image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if alpha else "RGB"))
