"""Large images as overlapping tiles, so that small defects are not lost in one resize: where the tiles lie.

The whole image is resized to a rectangle of several network inputs, cut into overlapping tiles of that input's shape,
and the tiles' energies are blended into one heatmap of that rectangle. Cutting and blending are part of the scorer's
graph, so every runtime does the same; a model is fitted on tiles of the size it will see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from pydantic import Field

from energyad.errors import SettingsError

MAX_TILES = 256


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How many tiles an image is cut into.

    Attributes:
        rows: from top to bottom.
        columns: from left to right.
        overlap: of neighbours, as a share of a tile's side, at most a half.

    Raises:
        SettingsError: for less than one tile a side, more than `MAX_TILES` in all, or an illegal overlap.

    Example:
        >>> Tiles(rows=1, columns=3).shape((256, 256))
        (256, 640)
    """

    rows: Annotated[int, Field(ge=1, le=MAX_TILES)] = 1
    columns: Annotated[int, Field(ge=1, le=MAX_TILES)] = 1
    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.25

    def __post_init__(self) -> None:
        """Refuse illegal values, naming each."""
        if not (self.rows >= 1 and self.columns >= 1 and self.count <= MAX_TILES):
            raise SettingsError(
                f"tiles {self.columns}x{self.rows}: give at least 1 a side and at most {MAX_TILES} in all"
            )
        if not 0 <= self.overlap <= 0.5:
            raise SettingsError(f"tile overlap {self.overlap!r}: must lie between 0 and 0.5")

    @property
    def count(self) -> int:
        """Number of tiles of an image."""
        return self.rows * self.columns

    def shape(self, tile_size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width, in pixels, of what tiles of this height and width cover together."""
        height, width = tile_size
        return length(self.rows, height, self.overlap), length(self.columns, width, self.overlap)


def parse_tiles(text: str) -> tuple[int, int]:
    """Return rows and columns.

    Args:
        text: "4" for 4 × 4, or "8x1" for 8 columns and 1 row.

    Raises:
        SettingsError: for any other text.
    """
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) not in {1, 2} or not all(part.isascii() and part.isdigit() for part in parts):
        raise SettingsError(f"tiles '{text}': give a number for both sides, or COLUMNSxROWS such as 8x1")
    columns, rows = int(parts[0]), int(parts[-1])
    return rows, columns


def starts(count: int, side: int, overlap: float) -> list[int]:
    """Return the first pixel of each tile along one axis.

    Args:
        count: tiles along the axis.
        side: pixels of a tile along it.
        overlap: of neighbours, as a share of `side`.
    """
    step = side - shared_pixels(side, overlap)
    return [step * number for number in range(count)]


def shared_pixels(side: int, overlap: float) -> int:
    """Return the pixels that neighbours share along one axis; of an odd side at most the smaller half, or three meet.

    Args:
        side: pixels of a tile along the axis.
        overlap: of neighbours, as a share of `side`.
    """
    return min(round(overlap * side), side // 2)


def length(count: int, side: int, overlap: float) -> int:
    """Return the pixels along one axis that the tiles cover together; see `starts` for the arguments."""
    return starts(count, side, overlap)[-1] + side


def cut_indices(count: int, side: int, overlap: float) -> Int64[np.ndarray, "count side"]:
    """Return the places of each tile's pixels along one axis; see `starts` for the arguments."""
    return np.array(starts(count, side, overlap))[:, None] + np.arange(side)


def cut_pixels(
    pixels: UInt8[np.ndarray, "h w 3"], tiles: Tiles, tile_size: tuple[int, int]
) -> UInt8[np.ndarray, "tiles th tw 3"]:
    """Cut one image into its tiles, row by row.

    Args:
        pixels: of an image of the shape that the tiles cover together, see `Tiles.shape`.
        tiles: how many, and how far they overlap.
        tile_size: height and width of a tile, pixels.
    """
    height, width = tile_size
    rows = cut_indices(tiles.rows, height, tiles.overlap)
    columns = cut_indices(tiles.columns, width, tiles.overlap)
    return pixels[rows][:, :, columns].transpose(0, 2, 1, 3, 4).reshape(-1, height, width, 3)


def blending_weights(
    count: int, side: int, overlap: float, *, margin: int = 0
) -> Float64[np.ndarray, "count side"]:
    """Return the weight of each tile's pixels along one axis; where tiles overlap they add up to one.

    Args:
        count: tiles along the axis.
        side: pixels of a tile along it.
        overlap: of neighbours, as a share of `side`.
        margin: pixels at a tile's ends where it has no patches. Weights rise linearly over the overlap but for these,
            where that leaves room.
    """
    shared = shared_pixels(side, overlap)
    spare = margin if shared > 2 * margin else 0
    weights = np.ones((count, side))
    if shared == 0:
        return weights
    rising = np.clip((np.arange(shared) + 0.5 - spare) / (shared - 2 * spare), 0, 1)
    weights[1:, :shared] = rising
    weights[:-1, -shared:] = 1 - rising
    return weights
