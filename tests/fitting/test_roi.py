"""Laws of the loaded area: polygons and masks mean the same, and what lies outside has no say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.energy.whitening import Whitening
from energyad.errors import DataError, ImageError, SettingsError
from energyad.features.grids import Grid
from energyad.fitting.roi import load_roi, read_region
from energyad.images.reading import write_png
from energyad.scoring.scorer import EnergyHead

SHAPE = (40, 60)
LEFT = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]


def file(folder: Path, content: object) -> Path:
    path = folder / "area.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_polygons_cover_their_own_pixels_exactly(tmp_path: Path) -> None:
    mask = read_region(file(tmp_path, {"units": "relative", "polygons": [LEFT]})).rasterise(SHAPE)
    assert mask[:, :30].all() and not mask[:, 30:].any()


def test_pixels_of_any_image_size_relative_corners_and_a_mask_image_mean_the_same(tmp_path: Path) -> None:
    relative = read_region(file(tmp_path, {"units": "relative", "polygons": [LEFT]})).rasterise(SHAPE)
    corners = [[500 * x, 200 * y] for x, y in LEFT]
    pixels = {"units": "pixels", "width": 500, "height": 200, "polygons": [corners]}
    image = np.zeros((200, 500), bool)
    image[:, :250] = True
    for area in (file(tmp_path, pixels), write_png(tmp_path / "mask.png", image), image):
        np.testing.assert_array_equal(read_region(area).rasterise(SHAPE), relative)


def test_a_triangle_has_half_the_area_of_its_box(tmp_path: Path) -> None:
    triangle = {"units": "relative", "polygons": [[[0, 0], [1, 0], [0, 1]]]}
    assert read_region(file(tmp_path, triangle)).rasterise((200, 300)).mean() == pytest.approx(0.5, abs=0.01)


def test_overlapping_polygons_add_up_and_ignored_ones_are_taken_out(tmp_path: Path) -> None:
    middle = [[0.25, 0], [0.75, 0], [0.75, 1], [0.25, 1]]
    roi = file(tmp_path, {"units": "relative", "polygons": [LEFT, middle]}).rename(tmp_path / "roi.json")
    ignore = file(tmp_path, {"units": "relative", "polygons": [LEFT]})
    loaded = load_roi(SHAPE, roi=roi, ignore=ignore)
    assert loaded.mask is not None and loaded.mask[:, 30:45].all() and int(loaded.mask.sum()) == 40 * 15
    assert loaded.spec is not None and loaded.spec.coverage == 0.25 and loaded.spec.inside is not None
    assert loaded.spec.inside[0] == "roi.json" and load_roi(SHAPE).mask is None
    with pytest.raises(SettingsError, match="nothing of the image is left"):
        load_roi(SHAPE, roi=ignore, ignore=ignore)


def test_energies_outside_have_no_say_in_the_score() -> None:
    whitening = Whitening(1, 1)
    whitening.projection.fill_(1.0)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, :32] = True
    grid = Grid.square(image_size=64, size=8, margin=1)
    head = EnergyHead(PatchEnergy(whitening, Given()), grid=grid, smoothing=0.0, mask=mask)
    energies = torch.full((1, 1, 6, 6), 0.2)
    quiet = head(energies)
    energies[..., 5] = 9.0
    outside = head(energies)
    energies[..., 0] = 3.0
    assert torch.equal(outside.score, quiet.score)
    assert 2.5 < float(head(energies).score) <= 3.0  # at the border, see `border_weights`
    assert not bool((outside.heatmap[:, ~mask] != 0).any())
    assert "mask" in head.state_dict() and torch.equal(outside.heatmap.amax((1, 2)), outside.score)


class Given(LatentEnergy):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z[..., 0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 10_000,
        '{"units": "relative", "polygons": []}',
        '{"units": "relative", "polygons": [[[0, 0], [1, 1]]]}',
        '{"units": "relative", "polygons": [[[0, 0], [2, 0], [0, 1]]]}',
        '{"units": "relative", "polygons": [[[0, 0], [NaN, 0], [0, 1]]]}',
        '{"units": "pixels", "polygons": [[[0, 0], [9, 0], [0, 9]]]}',
        '{"units": "metres", "polygons": [[[0, 0], [1, 0], [0, 1]]]}',
    ],
)
def test_a_file_that_holds_no_polygons_is_one_clear_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match=r"area\.json: no polygons"):
        read_region(file(tmp_path, content))


def test_a_file_that_is_neither_polygons_nor_a_mask_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.json.*cannot be read"):
        read_region(tmp_path / "gone.json")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.png"):
        read_region(tmp_path / "text.png")
    with pytest.raises(DataError, match="boolean"):
        read_region(np.zeros((4, 4)))
