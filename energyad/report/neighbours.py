"""One picture of why a part is ng: each region's strangest patch, beside the good patches that are most like it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from energyad.feedback.nearest import Neighbours, Patch
from energyad.images import reading
from energyad.report.sheet import font

CONTEXT: Final = 5
"""Sides of a patch that a cut-out shows."""
_TILE, _GAP, _CAPTION, _HEADER = 168, 12, 44, 84
_INK, _FAINT, _ALARM, _GOOD, _PAPER = (
    (24, 28, 36),
    (110, 116, 128),
    (184, 30, 44),
    (30, 120, 70),
    (255, 255, 255),
)


def draw_neighbours(
    found: Sequence[Neighbours], *, title: str, white_level: int | None = None
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the picture: a row for each region, a square around each patch.

    Args:
        found: Of one part.
        title: Above all.
        white_level: Of 16-bit images, see `energyad.images.reading.as_rgb`.
    """
    columns = 1 + max(len(region.good) for region in found)
    width = max(560, _GAP + columns * (_TILE + _GAP))
    canvas = Image.new("RGB", (width, _HEADER + len(found) * (_TILE + _CAPTION + _GAP)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_GAP, 14), title, font=font(20), fill=_INK)
    draw.text((_GAP, 48), "Left: the region. Right: the nearest good patches.", font=font(14), fill=_FAINT)
    for number, region in enumerate(found):
        top = _HEADER + number * (_TILE + _CAPTION + _GAP)
        _draw_patch(canvas, region.patch, (_GAP, top), _ALARM, f"region {number + 1}", "", white_level)
        for column, good in enumerate(region.good, start=1):
            name = _name(good.patch)
            detail = f"distance {good.distance:.3g}{'' if good.is_fitted else ', not in the fit'}"
            corner = (_GAP + column * (_TILE + _GAP), top)
            _draw_patch(canvas, good.patch, corner, _GOOD, name, detail, white_level)
    return np.asarray(canvas)


def _draw_patch(
    canvas: Image.Image,
    patch: Patch,
    corner: tuple[int, int],
    colour: tuple[int, int, int],
    name: str,
    detail: str,
    white_level: int | None,
) -> None:
    """A cut-out around a patch, and two lines below it."""
    pixels = reading.as_rgb(patch.image, white_level=white_level)
    side = min(CONTEXT * max(patch.width, patch.height), *pixels.shape[:2])
    left, top = (
        int(np.clip(first + size // 2 - side // 2, 0, full - side))
        for first, size, full in (
            (patch.left, patch.width, pixels.shape[1]),
            (patch.top, patch.height, pixels.shape[0]),
        )
    )
    cut = Image.fromarray(pixels[top : top + side, left : left + side]).resize((_TILE, _TILE))
    factor = _TILE / side
    first = (factor * (patch.left - left), factor * (patch.top - top))
    last = (first[0] + factor * patch.width - 1, first[1] + factor * patch.height - 1)
    ImageDraw.Draw(cut).rectangle((*first, *last), outline=colour, width=2)
    canvas.paste(cut, corner)
    draw = ImageDraw.Draw(canvas)
    shown = name if len(name) <= 22 else f"…{name[-21:]}"
    draw.text((corner[0], corner[1] + _TILE + 4), shown, font=font(14), fill=_INK)
    draw.text((corner[0], corner[1] + _TILE + 22), detail, font=font(13), fill=_FAINT)


def _name(patch: Patch) -> str:
    return Path(patch.image).name if isinstance(patch.image, str | Path) else "good part"
