"""How much of each patch a mask covers."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from energyad.images import reading
from energyad.images.tiling import Tiles, cut_pixels


def patch_coverage(
    mask: Bool[np.ndarray, "h w"],
    *,
    tiles: Tiles,
    tile_size: tuple[int, int],
    patches: tuple[int, int],
    margins: tuple[int, int],
) -> Float32[np.ndarray, "tiles g1 g2"]:
    """Return the fraction of each patch that a mask covers.

    Args:
        mask: Of the image at its own size.
        tiles: How the image is cut.
        tile_size: Height and width of a tile, pixels.
        patches: Rows and columns of patches that lie over a tile.
        margins: Rows at the top and bottom, and columns at both sides, of patches that are not used.
    """
    covered = mask.astype(np.float32)
    if mask.shape != tiles.shape(tile_size):
        covered = reading.resize_map(covered, *tiles.shape(tile_size))
    whole = np.repeat((255 * covered).round().astype(np.uint8)[..., None], 3, axis=2)
    cut = cut_pixels(whole, tiles, tile_size) if tiles.count > 1 else whole[None]
    rows, columns = (slice(margin, count - margin) for count, margin in zip(patches, margins, strict=True))
    on_grid = [reading.resize_map(tile[..., 0].astype(np.float32) / 255, *patches) for tile in cut]
    return np.stack([tile[rows, columns] for tile in on_grid])
