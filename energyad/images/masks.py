"""Mask files → boolean masks: what is defect and what is background, in the forms that labelling tools write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, UInt
from PIL import Image, UnidentifiedImageError

from energyad.errors import ImageError
from energyad.images.decoding import DEFAULT_MAX_PIXELS, read_raw

MAX_CLASSES: Final = 16
"""Grey levels up to which a mask holds class numbers or class colours; one with more is soft at its edges."""

EXIF_ORIENTATION: Final = 0x0112
UPRIGHT: Final = 1
TRANSPOSED: Final = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""

MaskForm = Literal["binary", "classes", "soft", "alpha"]


@dataclass(frozen=True)
class Mask:
    """A mask as it was read.

    Attributes:
        defect: True where the file marks a defect.
        form: how the file said so. "binary": two levels; "classes": a few grey levels, all but the lowest are
            defects; "soft": many levels, defects are above half of white; "alpha": only the transparency varies.
    """

    defect: Bool[np.ndarray, "h w"]
    form: MaskForm


def load_mask(path: str | Path) -> Mask:
    """Read a mask file.

    Args:
        path: an image file; lossy formats are cut at half of white.

    Returns:
        The mask and the form it was written in.

    Raises:
        ImageError: where the file cannot be read.
    """
    raw = read_raw(Path(path), max_pixels=DEFAULT_MAX_PIXELS)
    levels, is_alpha = _mask_levels(raw.pixels)
    if raw.lossy:
        return Mask(levels > raw.white // 2, "soft")
    found = np.unique(levels)
    if is_alpha:
        return Mask(levels > raw.white // 2, "alpha")
    if len(found) > MAX_CLASSES:
        return Mask(levels > raw.white // 2, "soft")
    background = found[0] if len(found) > 1 else 0
    return Mask(levels > background, "binary" if len(found) <= 2 else "classes")


def read_mask(path: str | Path, *, shape: tuple[int, int] | None = None) -> Bool[np.ndarray, "h w"]:
    """Read a defect mask as booleans; see `load_mask`.

    Args:
        path: the mask file.
        shape: height and width in pixels that it must have.

    Raises:
        ImageError: where the file cannot be read or has another shape.
    """
    mask = load_mask(path).defect
    if shape is not None and mask.shape != tuple(shape):
        size, wanted = f"{mask.shape[1]} x {mask.shape[0]}", f"{shape[1]} x {shape[0]}"
        raise ImageError(path, f"the mask has {size} pixels, its image {wanted}; they must be the same")
    return mask


def read_mask_of(image: Path, path: Path, *, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Read the mask of an image that may carry an EXIF orientation.

    A mask that was drawn on the stored pixels of a photograph lies on its side where the photograph is turned
    upright. Where width and height show that, it is turned as its image is.

    Args:
        image: the image's own file.
        path: the mask file.
        shape: height and width in pixels of the upright image.

    Raises:
        ImageError: where the mask cannot be read, or has neither the upright nor the stored shape.
    """
    mask = load_mask(path).defect
    if mask.shape != tuple(shape) and mask.shape == tuple(shape)[::-1]:
        orientation = orientation_of(image)
        if orientation in TRANSPOSED and orientation_of(path) == UPRIGHT:
            return turn_upright(mask, orientation)
    return read_mask(path, shape=shape)


def turn_upright(mask: Bool[np.ndarray, "h w"], orientation: int) -> Bool[np.ndarray, "h2 w2"]:
    """Turn stored pixels upright by their EXIF orientation (1 to 8; CIPA DC-008, tag 0x0112)."""
    if orientation in TRANSPOSED:
        mask = mask.T
    if orientation in (2, 3, 6, 7):
        mask = mask[:, ::-1]
    if orientation in (3, 4, 7, 8):
        mask = mask[::-1]
    return np.ascontiguousarray(mask)


def orientation_of(path: Path) -> int:
    """The EXIF orientation of a file, 1 (upright) where it has none or is no image."""
    try:
        with Image.open(path) as image:
            found = image.getexif().get(EXIF_ORIENTATION, UPRIGHT)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return UPRIGHT
    return found if found in range(1, 9) else UPRIGHT


def _mask_levels(pixels: UInt[np.ndarray, "h w c"]) -> tuple[UInt[np.ndarray, "h w"], bool]:
    """One level a pixel; whether it is the transparency, which some tools write alone."""
    colours = pixels if pixels.shape[2] in (1, 3) else pixels[:, :, :-1]
    levels = colours.max(axis=2)
    if pixels.shape[2] in (2, 4) and levels.min() == levels.max():
        alpha = pixels[:, :, -1]
        if alpha.min() != alpha.max():
            return alpha, True
    return levels, False
