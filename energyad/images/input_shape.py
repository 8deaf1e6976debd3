"""The height and width of a network's input, from the shapes of the good images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal, TypeAlias

from energyad.errors import SettingsError
from energyad.images.tiling import MAX_TILES, length

Auto: TypeAlias = Literal["auto"]

STEP: Final = 32
"""Pixels: sides are multiples of it, the coarsest stride of most networks."""
MIN_SIDE: Final = 64
AUTO_SIDES: Final = (256, 320)
"""Smallest and largest side that "auto" chooses, pixels. More find smaller defects, and lose on large ones."""
MAX_ASPECT: Final = 4.0
"""Longer side over shorter side of one input; longer images are cut into tiles."""
MAX_ENLARGEMENT: Final = 8.0
"""How many times an image's side may be enlarged. More pixels show nothing more and take time."""
ALIKE: Final = 1.25
"""Aspects that differ by a smaller factor are alike."""
MAX_UNLIKE: Final = 0.25
"""Fraction of images unlike the median aspect beyond which no one shape suits them: a square it is."""


@dataclass(frozen=True)
class InputShape:
    """The input of a network for images of some shapes.

    Attributes:
        image_size: Height and width of the input, or of each tile, pixels.
        tiles: Rows and columns of tiles.
        is_mixed: Whether the images' aspects differ so much that a square is used.
    """

    image_size: tuple[int, int]
    tiles: tuple[int, int] = (1, 1)
    is_mixed: bool = False


def parse_image_size(text: str) -> int | tuple[int, int] | Auto:
    """Return a side, height and width, or "auto".

    Args:
        text: "256", "192x320" for 192 pixels high and 320 wide, or "auto".

    Raises:
        SettingsError: for any other text.
    """
    if text == "auto":
        return "auto"
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) not in {1, 2} or not all(part.isascii() and part.isdigit() for part in parts):
        raise SettingsError(f"image size '{text}': give a side, HEIGHTxWIDTH such as 192x320, or auto")
    sides = tuple(int(part) for part in parts)
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def find_input_shape(
    image_shapes: Sequence[tuple[int, int]], side: int | Auto, *, tile_overlap: float
) -> InputShape:
    """Find the input that keeps the images' median aspect, with about as many pixels as a square of this side.

    Args:
        image_shapes: Height and width of each good image.
        side: Of the square, pixels; a multiple of `STEP` for square images, which get it as it is. "auto" for as many
            pixels as the images have, within `AUTO_SIDES`.
        tile_overlap: Of the tiles that long images are cut into, as a fraction of a tile's side.

    Example:
        >>> find_input_shape([(480, 640)] * 20, 256, tile_overlap=0.25).image_size
        (224, 288)
    """
    aspects = [math.log(width / height) for height, width in image_shapes]
    usual = median(aspects)
    unlike = sum(abs(aspect - usual) > math.log(ALIKE) for aspect in aspects)
    shorter_side = median(map(min, image_shapes))
    if unlike > MAX_UNLIKE * len(aspects):
        square = _auto_side(shorter_side) if side == "auto" else side
        return InputShape((square, square), is_mixed=True)
    own_side = median(math.sqrt(height * width) for height, width in image_shapes)
    is_tiled = abs(usual) > math.log(MAX_ASPECT)
    # A tile's shorter side is the square's side over this root.
    enough = math.sqrt(MAX_ASPECT) * shorter_side if is_tiled else own_side
    square = _auto_side(enough) if side == "auto" else side
    if square > MAX_ENLARGEMENT * own_side:
        square = max(MIN_SIDE, STEP * round(MAX_ENLARGEMENT * own_side / STEP))
    if usual == 0:
        return InputShape((square, square))
    long_side = _tiled if is_tiled else _whole
    (short, long), count = long_side(math.exp(abs(usual)), square, tile_overlap)
    if usual > 0:
        return InputShape((short, long), (1, count))
    return InputShape((long, short), (count, 1))


def _auto_side(own_side: float) -> int:
    """Return the largest side that enlarges no image of this side, within `AUTO_SIDES`."""
    smallest, largest = AUTO_SIDES
    return min(max(smallest, STEP * int(own_side / STEP)), largest)


def _whole(aspect: float, side: int, _: float) -> tuple[tuple[int, int], int]:
    """Return the shorter and the longer side of one input, the nearest in aspect and in number of pixels."""
    sides = range(MIN_SIDE, STEP * math.ceil(2 * side / STEP) + MIN_SIDE + 1, STEP)
    pairs = [(short, long) for short in sides for long in sides if short <= long]

    def error(pair: tuple[int, int]) -> float:
        short, long = pair
        return abs(math.log(long / short / aspect)) + abs(math.log(long * short / side**2))

    return min(pairs, key=error), 1


def _tiled(aspect: float, side: int, overlap: float) -> tuple[tuple[int, int], int]:
    """Return both sides of a tile, and how many cover an image of this aspect. One tile has the square's pixels."""
    short = max(MIN_SIDE, STEP * round(side / math.sqrt(MAX_ASPECT) / STEP))
    covered = 1 - overlap
    count = min(MAX_TILES, math.ceil((aspect / MAX_ASPECT - overlap) / covered))
    long = STEP * max(1, round(aspect * short / (overlap + covered * count) / STEP))
    near = [max(MIN_SIDE, long + step) for step in (-STEP, 0, STEP)]
    long = min(near, key=lambda each: abs(length(count, each, overlap) / short - aspect))
    return (short, long), count
