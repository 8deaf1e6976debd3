"""Files → images: read them as 8-bit RGB, bring them to the network's size and maps back."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from jaxtyping import Float, Float32, Shaped, UInt, UInt8
from PIL import Image, ImageOps

from energyad.errors import ImageError, SettingsError
from energyad.files import atomic_write
from energyad.images.decoding import (
    DEFAULT_MAX_PIXELS,
    decode_raw,
    memory_errors_named,
    pillow_pixels,
    read_raw,
)
from energyad.images.formats.raw import RawImage

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "as_rgb",
    "decode_image",
    "read_image",
    "resize",
    "resize_map",
    "write_png",
]


_BLOCK_PIXELS: Final = 1 << 16
"""Pixels that are converted at a time, so that the intermediate values stay small."""
_FLOAT_TOLERANCE: Final = 1e-4
"""How far rounding may go beyond [0, 1]. A step of 8 bits is 40 times as much."""


def read_image(
    path: str | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS, white_level: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Read a PNG, JPEG, BMP, TIFF or WebP file as 8-bit RGB, turned upright by its EXIF orientation.

    16-bit files are divided by their full range (65535 → 255), never by their own maximum: brightness must
    not depend on what is in the picture. A camera of 10, 12 or 14 bits that fills only part of the range needs its
    `white_level` (1023, 4095, 16383); a file that looks like that is warned about, and one that is brighter than its
    `white_level`. Declared transparency is composited on white, as viewers show it; where every pixel is
    transparent, alpha is taken for unused and the colours stay. Colour profiles are ignored. Of several pages or
    frames the first is read.

    Peak memory beside the file: 12 bytes for each pixel of 8 bits, 24 of 16 bits, and what the decoder needs.

    Args:
        path: the file.
        max_pixels: the largest width times height; known before any pixel is decoded.
        white_level: the value of white in 16-bit files; None for 65535. 8-bit files are left alone.

    Raises:
        ImageError: one line that names the file and the remedy. A part of an image is never returned.
    """
    with memory_errors_named(path):
        return _own(_to_rgb8(read_raw(Path(path), max_pixels=max_pixels), white_level))


def decode_image(
    data: bytes, *, name: str = "image", max_pixels: int = DEFAULT_MAX_PIXELS, white_level: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image file as 8-bit RGB, by the rules of `read_image`. `name` is what errors call it."""
    with memory_errors_named(name):
        return _own(_to_rgb8(decode_raw(data, Path(name), max_pixels=max_pixels), white_level))


def as_rgb(
    image: str | Path | bytes | Image.Image | np.ndarray,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    white_level: int | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Make 8-bit RGB of a path, the bytes of a file, a Pillow image or an array, by the rules of `read_image`.

    Arrays are `h w`, `h w 1`, `h w 3` (RGB; OpenCV's BGR must be swapped first) or `h w 4` (RGBA), of dtype
    uint8, uint16 (white = 65535 or `white_level`) or floats in [0, 1]. Anything else is an `ImageError`.
    Grey images give a read-only view whose three channels share their memory.
    """
    if isinstance(image, str | Path):
        with memory_errors_named(image):
            return _to_rgb8(read_raw(Path(image), max_pixels=max_pixels), white_level)
    if isinstance(image, bytes):
        with memory_errors_named("image"):
            return _to_rgb8(decode_raw(image, Path("image"), max_pixels=max_pixels), white_level)
    if isinstance(image, Image.Image):
        pixels = pillow_pixels(ImageOps.exif_transpose(image))
    elif isinstance(image, np.ndarray):
        pixels = _checked_array(image)
    else:
        kind = type(image).__name__
        raise ImageError("image", f"a {kind} is no image; give a path, bytes, a PIL image or an array")
    return _to_rgb8(RawImage(pixels, int(np.iinfo(pixels.dtype).max), lossy=False), white_level)


def _checked_array(array: np.ndarray) -> UInt[np.ndarray, "h w c"]:
    shape = "x".join(map(str, array.shape))
    pixels = array[:, :, None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in {1, 3, 4} or pixels.size == 0:
        raise ImageError("array", f"shape {shape} is no image; use h x w, h x w x 1, h x w x 3 or h x w x 4")
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if not np.issubdtype(pixels.dtype, np.floating):
        reason = f"dtype {pixels.dtype} has no defined white"
        raise ImageError("array", f"{reason}; use uint8, uint16 or floats in [0, 1]")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -_FLOAT_TOLERANCE and high <= 1.0 + _FLOAT_TOLERANCE):  # NaN fails both
        span = f"[{low:.9g}, {high:.9g}]"
        raise ImageError("array", f"floats must lie in [0, 1], these span {span}; rescale them")
    return np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)


def _to_rgb8(raw: RawImage, white_level: int | None) -> UInt8[np.ndarray, "h w 3"]:
    pixels = raw.pixels
    if pixels.shape[2] == 4 and not pixels[:, :, 3].any():
        pixels = pixels[
            :, :, :3
        ]  # an unused fourth channel, as 32-bit bitmaps have; nobody saves an empty picture
    if pixels.dtype == np.uint16:
        pixels = _reduce_to_8_bits(pixels, raw.white, white_level)
    if pixels.shape[2] == 1:
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.ascontiguousarray(_over_white(pixels) if pixels.shape[2] == 4 else pixels)


def _over_white(pixels: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    if int(pixels[:, :, 3].min()) == 255:
        return pixels[:, :, :3]
    composite = np.empty((*pixels.shape[:2], 3), np.uint8)
    for block in _blocks(pixels):
        alpha = pixels[block, :, 3:].astype(np.uint16)
        value = pixels[block, :, :3] * alpha
        value += 255 * (255 - alpha) + 128
        composite[block] = (
            value + (value >> 8)
        ) >> 8  # divides by 255, rounding to the nearest, up to 255 * 255
    return composite


def _blocks(pixels: UInt[np.ndarray, "h w c"]) -> list[slice]:
    rows = max(1, _BLOCK_PIXELS // pixels.shape[1])
    return [slice(first, first + rows) for first in range(0, len(pixels), rows)]


def _own(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    if _is_shared(pixels):
        return _repeated(pixels[:, :, 0])
    return pixels if pixels.flags.writeable else pixels.copy()


def _is_shared(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether the three channels are one and the same memory, as `as_rgb` gives grey images."""
    return pixels.strides[2] == 0


def _repeated(grey: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    return cv2.cvtColor(np.ascontiguousarray(grey), cv2.COLOR_GRAY2RGB)


def _reduce_to_8_bits(
    pixels: UInt[np.ndarray, "h w c"], full: int, white_level: int | None
) -> UInt8[np.ndarray, "h w c"]:
    white = full if white_level is None else white_level
    if not 1 <= white <= 65535:
        raise SettingsError(f"white_level {white} is outside 1 to 65535")
    _warn_of_range(int(pixels[:, :, :3].max()), white)
    scaled = np.empty(pixels.shape, np.uint8)
    for block in _blocks(pixels):
        values = pixels[block].astype(np.uint32)
        scaled[block] = np.minimum((values * 255 + white // 2) // white, 255)
        if pixels.shape[2] == 4:  # alpha has no white level: opaque is the full range
            scaled[block, :, 3] = (values[:, :, 3] * 255 + full // 2) // full
    return scaled


def _warn_of_range(brightest: int, white: int) -> None:
    """Warn of data that fill a corner of their range, or more than it. The texts are few: each is shown once."""
    if brightest > white:
        text = f"an image is brighter than white_level {white} and saturates"
        warnings.warn(f"{text}; check the camera's bits, and fit again with its white_level", stacklevel=5)
    bits = next((bits for bits in (10, 12, 14) if 255 < brightest < 2**bits), None)
    if white == 65535 and bits is not None:
        text = f"a 16-bit image uses only a corner of its range, as {bits}-bit cameras do, and turns too dark"
        warnings.warn(f"{text}; give white_level ({2**bits - 1} for {bits} bits)", stacklevel=5)


def resize(
    image: UInt8[np.ndarray, "h w 3"], size: int | tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """Squeeze the whole image into height and width, or into a square of `size` pixels: nothing is cropped, the aspect
    is not kept.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise SettingsError(f"image size {size} must be at least 1 pixel")
    if _is_shared(image):
        return _repeated(_stretch(np.ascontiguousarray(image[:, :, 0]), height, width))
    return _stretch(image, height, width)


def resize_map(
    heatmap: Float[np.ndarray, "rows columns"], height: int, width: int
) -> Float32[np.ndarray, "height width"]:
    """Take a heatmap back to the pixels of the original image: the inverse of `resize`, edges onto edges.

    Values are averaged or interpolated, so they stay within the heatmap's range and keep its units.
    """
    return _stretch(heatmap.astype(np.float32, copy=False), height, width)


def _stretch(
    array: Shaped[np.ndarray, "h w ..."], height: int, width: int
) -> Shaped[np.ndarray, "height width ..."]:
    # By axis: averaging where it shrinks (no aliasing), then interpolation where it grows.
    shrunk = (min(array.shape[1], width), min(array.shape[0], height))
    if shrunk != (array.shape[1], array.shape[0]):
        array = cv2.resize(array, shrunk, interpolation=cv2.INTER_AREA)
    if shrunk != (width, height):
        # numpy's memory is used again; what OpenCV allocates is new to the process every time, which takes longer.
        grown = np.empty((height, width, *array.shape[2:]), array.dtype)
        array = cv2.resize(array, (width, height), dst=grown, interpolation=cv2.INTER_LINEAR)
    return array


def write_png(path: str | Path, array: Shaped[np.ndarray, "h w *channels"]) -> Path:
    """Write uint8 or uint16 grey `h w`, RGB `h w 3`, or a bool mask `h w` (0 and 255) as PNG.

    The file appears whole or not at all. Raises DataError where it cannot be written.
    """
    pixels: Any = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return atomic_write(path, cv2.imencode(".png", pixels)[1].tobytes())


ImageLike: TypeAlias = str | Path | bytes | Image.Image | np.ndarray
"""A path, the bytes of an image file, a Pillow image, or an array as `as_rgb` takes it."""
