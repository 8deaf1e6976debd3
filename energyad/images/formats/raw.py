"""Decoded pixels as a file holds them, and the errors of all formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import cv2
import numpy as np
from jaxtyping import UInt

from energyad.errors import ImageError

TRUNCATED: Final = "the file is truncated or damaged; copy it again or leave it out"
MAX_FRAMES: Final = 1000


@dataclass(frozen=True)
class RawImage:
    """Pixels as the file holds them, channels in RGB order.

    Attributes:
        pixels: uint8 or uint16 with 1, 3 (RGB) or 4 (RGBA, not premultiplied) channels.
        white: the value of full white and of opaque alpha.
        lossy: whether the compression alters pixels.
    """

    pixels: UInt[np.ndarray, "h w c"]
    white: int
    lossy: bool


class EncodedImage(Protocol):
    """A file whose structure was checked; nothing is decoded yet."""

    @property
    def width(self) -> int:
        """Columns before the image is turned upright."""

    @property
    def height(self) -> int:
        """Rows before the image is turned upright."""

    @property
    def orientation(self) -> int:
        """EXIF orientation, 1 to 8."""

    def decode(self) -> RawImage:
        """Decode the pixels, not turned. Raises ImageError where they are not all there."""


def damaged() -> ImageError:
    """An error for a file that lacks bytes or contradicts itself; the caller names the file."""
    return ImageError("image", TRUNCATED)


def unsupported(kind: str, remedy: str = "save it as PNG") -> ImageError:
    """An error for a file that is whole, but of a kind that is not read."""
    return ImageError("image", f"{kind} is not supported; {remedy}")


def excessive(what: str) -> ImageError:
    """An error for a file whose structure would cost more than its pixels."""
    return ImageError("image", f"the file has {what}, more than any camera writes; save it again")


def require(condition: bool) -> None:
    """Raise the error for a damaged file unless `condition` holds."""
    if not condition:
        raise damaged()


def decode_opencv(data: bytes, flags: int) -> UInt[np.ndarray, "h w c"]:
    """Decode by OpenCV into grey, RGB or RGBA."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        raise damaged()
    if decoded.ndim == 2:
        return decoded[:, :, None]
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB if decoded.shape[2] == 3 else cv2.COLOR_BGRA2RGBA)


def turn_upright(pixels: UInt[np.ndarray, "a b c"], orientation: int) -> UInt[np.ndarray, "h w c"]:
    """Apply the EXIF orientation tag, 1 to 8."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
