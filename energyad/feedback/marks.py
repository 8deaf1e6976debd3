"""Where reviewers marked defects: polygons in the pixels of the image, and masks of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool

Polygon: TypeAlias = tuple[tuple[int, int], ...]
"""Corners (x, y), pixel indices. Its border belongs to it; two corners are a line, one is a point."""


def polygons_of(mask: Bool[np.ndarray, "h w"]) -> tuple[Polygon, ...]:
    """Return the outer borders of a mask's regions. `mask_of` gives the mask back, its holes filled."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(tuple((int(x), int(y)) for x, y in contour[:, 0]) for contour in contours)


def mask_of(polygons: Sequence[Polygon], shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """Return the pixels of polygons, their borders included.

    Args:
        polygons: The marks; what lies outside of the image is left out.
        shape: Height and width of the image, pixels.
    """
    mask = np.zeros(shape, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(mask, [np.array(polygon, np.int32)], 1)
    return mask.astype(bool)


def box(x: float, y: float, width: float, height: float) -> Polygon:
    """Return the polygon of an upright rectangle, of at least one pixel."""
    left, top = round(x), round(y)
    right, bottom = max(left, round(x + width) - 1), max(top, round(y + height) - 1)
    return ((left, top), (right, top), (right, bottom), (left, bottom))
