"""Laws of tiles: nothing is lost between them, and no seam is made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.energy.whitening import Whitening
from energyad.errors import SettingsError
from energyad.features.grids import Grid
from energyad.fitting.extraction import sample_tiles
from energyad.images.tiling import Tiles, blending_weights, cut_pixels, length, parse_tiles, starts
from energyad.scoring.heatmaps import blended, upsampling_matrix
from energyad.scoring.scorer import EnergyHead, cut
from energyad.settings import FitSettings

GRID = Grid.square(image_size=64, size=16, margin=4)


class FirstLatent(LatentEnergy):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z[..., 0]


def head(tiles: Tiles, grid: Grid = GRID) -> EnergyHead:
    whitening = Whitening(1, 1)
    whitening.projection.fill_(1.0)
    return EnergyHead(PatchEnergy(whitening, FirstLatent()), grid=grid, smoothing=0.0, tiles=tiles)


@settings(max_examples=40)
@example(count=3, side=27, overlap=0.5, margin=0)
@given(
    count=st.integers(1, 6),
    side=st.integers(16, 80),
    overlap=st.floats(0, 0.5),
    margin=st.integers(0, 20),
)
def test_weights_of_overlapping_tiles_add_up_to_one(
    count: int, side: int, overlap: float, margin: int
) -> None:
    weights = blending_weights(count, side, overlap, margin=margin)
    total = np.zeros(length(count, side, overlap))
    for start, own in zip(starts(count, side, overlap), weights, strict=True):
        total[start : start + side] += own
    np.testing.assert_allclose(total, 1)
    assert weights.min() >= 0


def test_a_single_tile_is_the_image_itself() -> None:
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    assert cut(pixels, Tiles(), (64, 64)) is pixels
    plain = upsampling_matrix(GRID.rows, smoothing=2.0)
    assert torch.equal(blended(plain, 1, 0.25), plain)


@pytest.mark.parametrize("tiles", [Tiles(rows=2, columns=3), Tiles(rows=1, columns=4, overlap=0.5)])
def test_every_pixel_is_in_a_tile_at_its_own_place(tiles: Tiles) -> None:
    height, width = tiles.shape((64, 64))
    places = torch.arange(height * width).reshape(1, height, width, 1).expand(2, -1, -1, 3)
    found = cut(places, tiles, (64, 64)).reshape(2, tiles.rows, tiles.columns, 64, 64, 3)
    step = 64 - round(tiles.overlap * 64)
    for row in range(tiles.rows):
        for column in range(tiles.columns):
            window = places[:, row * step : row * step + 64, column * step : column * step + 64]
            assert torch.equal(found[:, row, column], window)


def test_tiles_may_be_wider_than_high() -> None:
    tiles = Tiles(rows=2, columns=2, overlap=0.25)
    assert tiles.shape((64, 128)) == (112, 224)
    pixels = torch.arange(112 * 224 * 3).reshape(1, 112, 224, 3)
    found = cut(pixels, tiles, (64, 128))
    assert torch.equal(found[3], pixels[0, 48:, 96:])
    np.testing.assert_array_equal(cut_pixels(pixels[0].numpy(), tiles, (64, 128)), found.numpy())


def test_a_constant_energy_stays_constant_over_all_tiles() -> None:
    tiles = Tiles(rows=2, columns=3)
    heatmap = head(tiles)(torch.full((2 * 6, 1, 8, 8), 0.7)).heatmap
    assert heatmap.shape == (2, *tiles.shape((64, 64)))
    torch.testing.assert_close(heatmap, torch.full_like(heatmap, 0.7))


def test_a_ramp_across_the_tiles_has_no_seam() -> None:
    tiles, grid = Tiles(rows=1, columns=3), Grid.square(image_size=256, size=32, margin=2)
    centres = 8 * (torch.arange(28) + 2.5)  # of a tile's inner patches, in pixels
    ramp = torch.stack([start + centres for start in starts(3, 256, 0.25)])
    heatmap = head(tiles, grid)(ramp[:, None, None, :].expand(3, 1, 28, 28)).heatmap
    inside = heatmap[0, 128, 20:-20]
    torch.testing.assert_close(inside.diff(), torch.ones_like(inside[1:]), atol=1e-3, rtol=0)


def test_a_hot_patch_of_one_tile_peaks_at_its_own_pixels() -> None:
    tiles = Tiles(rows=2, columns=2, overlap=0.25)
    energies = torch.zeros(4, 1, 8, 8)
    energies[3, 0, 7, 7] = 1.0  # lower right tile, its last inner patch
    heatmap = head(tiles)(energies).heatmap[0]
    row, column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    assert row >= 48 + 44 and column >= 48 + 44


def test_tiles_are_written_as_one_number_or_columns_by_rows() -> None:
    assert parse_tiles("4") == (4, 4)
    assert parse_tiles("8x1") == (1, 8)
    for text in ("", "x", "2x", "-1", "2x3x4", "²", "1.5"):
        with pytest.raises(SettingsError, match="tiles"):
            parse_tiles(text)


@pytest.mark.parametrize(
    "given_", [{"rows": 0}, {"rows": 99, "columns": 9}, {"overlap": 0.6}, {"overlap": -1}]
)
def test_tiles_that_make_no_sense_are_refused(given_: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        Tiles(**given_)  # type: ignore[arg-type]


def test_a_fit_looks_at_other_tiles_of_other_images_and_at_the_same_ones_every_time() -> None:
    wanted = FitSettings().with_values({"input.image_size": 64, "input.tiles": (3, 3)})
    height, width = wanted.input.shape
    column = np.arange(width, dtype=np.uint8)[None, :, None]
    images = [np.broadcast_to(column + shade, (height, width, 3)) for shade in range(8)]
    few = [sample_tiles(image, settings=wanted, max_tiles=4) for image in images]
    assert all(tiles.shape == (4, 64, 64, 3) for tiles in few)
    assert all(
        np.array_equal(tiles, sample_tiles(image, settings=wanted, max_tiles=4))
        for tiles, image in zip(few, images, strict=True)
    )
    lefts = {tuple((tiles[:, 0, 0, 0] - shade).tolist()) for shade, tiles in enumerate(few)}
    assert len(lefts) > 1
    assert sample_tiles(images[0], settings=wanted, max_tiles=99).shape[0] == 9
