"""Laws of several scales: what is one, on which grid it is judged, and what a product of their energies is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from energyad.backbones import empty_backbone
from energyad.demo import render_good
from energyad.detector import AnomalyDetector
from energyad.experts import Expert, ScaleProduct, unite
from energyad.features import Grid, Scale, interpolation_matrix, scales
from energyad.latents import fit_whitening
from energyad.scales import scales_of
from energyad.settings import FitSettings
from energyad.stages import BlockStacks, without_last_stack
from tests.test_experts import mean_decides

FINE, COARSE = Scale(0, 2), Scale(2, 5, factor=2)
SIDE = 4
SETTINGS = FitSettings(
    image_size=96,
    strides=(4, 8, 16, 32),
    scale_powers=(1.0, 1.0, 0.5),
    num_latents=12,
    energy_width=16,
    num_prototypes=20,
    closer_prototypes=40,
    planted_defects=1,
    discriminator_iterations=5,
    warmup_iterations=20,
    iterations=2,
)


class MeanSquare(torch.nn.Module):
    """An energy that is easily foretold."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.square().mean(dim=-1)


def an_expert(channels: int, seed: int = 0) -> Expert:
    patches = torch.randn(100, channels, generator=torch.Generator().manual_seed(seed))
    return Expert(fit_whitening(patches, num_latents=channels), MeanSquare()).eval()


def a_product(seed: int = 0) -> ScaleProduct:
    return ScaleProduct(
        [an_expert(2, seed), an_expert(3, seed)], [FINE, COARSE], side=SIDE, powers=(1.0, 0.5)
    )


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_stages_as_fine_as_the_grid_are_one_scale_and_each_coarser_one_its_own() -> None:
    grid = Grid(image_size=256, size=32, margin=2)
    found = scales([64, 32, 16, 8], [24, 40, 112, 192], grid)
    assert found == (Scale(0, 64), Scale(64, 176, factor=2), Scale(176, 368, factor=4))
    assert scales([32, 32], [5, 6], grid) == (Scale(0, 11),)
    assert scales_of(found, FitSettings()) == (Scale(0, 368),)
    assert scales_of(found, SETTINGS) == found


def test_a_coarse_patch_is_the_mean_of_the_grids_that_it_covers_tile_by_tile() -> None:
    grids = drawn(3, 2 * SIDE, SIDE, 5)  # two tiles below one another
    found = COARSE.of(grids)
    assert found.shape == (3, SIDE, SIDE // 2, 3)
    torch.testing.assert_close(found[1, 3, 0], grids[1, 6:8, 0:2, 2:].mean(dim=(0, 1)))
    assert torch.equal(FINE.of(grids), grids[..., :2])


def test_a_coarse_patch_counts_where_any_of_its_own_does() -> None:
    patches = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    patches[1, 2] = True
    assert COARSE.any_of(patches).tolist() == [[False, True], [False, False]]
    assert torch.equal(FINE.any_of(patches), patches)


def test_energies_of_scales_are_interpolated_and_multiplied() -> None:
    product, features = a_product(), drawn(2, SIDE, SIDE, 5)
    fine = product.experts[0](features[..., :2], SIDE**2)
    coarse = product.experts[1](COARSE.of(features), SIDE)
    upsampled = torch.nn.functional.interpolate(coarse[:, None], scale_factor=2, mode="bilinear")[:, 0]
    torch.testing.assert_close(product(features, SIDE**2), fine * upsampled.sqrt())


def test_interpolation_keeps_what_is_even() -> None:
    matrix = interpolation_matrix(3, 12).float()
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(12))
    torch.testing.assert_close(matrix @ torch.arange(3.0), torch.clamp(torch.arange(12) / 4 - 0.375, 0, 2))


@pytest.mark.parametrize("tiles", [1, 2])
def test_of_several_categories_each_is_judged_by_its_own_product(tiles: int) -> None:
    products = [a_product(seed) for seed in range(2)]
    numbers = torch.tensor([1, 0, 1])
    features = drawn(3 * tiles, SIDE, SIDE, 5) + numbers.repeat_interleave(tiles)[:, None, None, None]
    experts = unite(products, mean_decides_of(5), units=None, tiles=tiles).requires_grad_(False)
    energies, category = experts(features)
    assert category.tolist() == numbers.tolist()
    for place, number in enumerate(numbers):
        own = slice(place * tiles, (place + 1) * tiles)
        torch.testing.assert_close(energies[own], products[number](features[own], tiles * SIDE**2))


def mean_decides_of(channels: int) -> Any:
    rule = mean_decides(2)
    return type(rule)(
        torch.zeros(channels), rule.axes[:1].repeat(channels, 1) * len(rule.axes) / channels, rule.offsets
    )


@pytest.mark.filterwarnings("ignore:only")
@pytest.mark.parametrize("categories", [None, ["one", "two"] * 4])
def test_a_model_of_scales_survives_its_folder_and_scores_alike_on_every_engine(
    categories: list[str] | None, tmp_path: Path
) -> None:
    parts = [render_good(0, "train", index, size=96) for index in range(8)]
    area = np.zeros((96, 96), dtype=bool)
    area[:, :80] = True
    model = AnomalyDetector.fit(
        parts, categories=categories, settings=SETTINGS, any_direction=False, threads=1, roi=area
    )
    model.save(tmp_path / "model")
    engines = [
        AnomalyDetector.load(tmp_path / "model", runtime=name, threads=1) for name in ("onnxruntime", "torch")
    ]
    others = [render_good(1, "train", index, size=96) for index in range(4)]  # far from any prototype
    expected, found = ([engine.score(part) for part in others] for engine in engines)
    for one, other in zip(expected, found, strict=True):
        assert other.score == pytest.approx(one.score, rel=1e-3)
        np.testing.assert_allclose(other.heatmap, one.heatmap, rtol=1e-2, atol=1e-3 * one.score)
        assert not one.heatmap[:, 88:].any() and one.heatmap[:, :80].any()


def test_the_last_stack_of_an_efficientnet_is_left_out_where_another_has_its_stride() -> None:
    name, how = "tf_efficientnet_lite0", {"image_size": 64}
    model = empty_backbone(name, out_indices=(1, 2, 3, 4), **how).eval()
    plain = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    assert isinstance(model, BlockStacks)
    plain.load_state_dict(model.state_dict(), strict=False)
    x = drawn(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = model(x), plain(x)
        for one, other in zip(found[:3], expected[:3], strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(plain.blocks[-1](found[3]), expected[3])
    assert [each.shape[1] for each in found] == model.feature_info.channels() == [24, 40, 112, 192]
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    fine = timm.create_model(name, features_only=True, out_indices=(1, 2, 3))
    other = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    assert without_last_stack(fine) is fine and without_last_stack(other) is other
