"""Laws of scales: the image and the image at half its size, on which grids they are judged, their energies' product."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch.nn import functional as F

from energyad.data.demo import render_good
from energyad.detector import AnomalyDetector
from energyad.energy.categories import stack_categories
from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.patch_energy import ENERGY_EPS, LOCALISATION_COARSE, MultiScaleEnergy, PatchEnergy
from energyad.energy.whitening import fit_whitening
from energyad.features.backbones import BlockStacks, empty_backbone, without_last_stack
from energyad.features.extractor import Stages, choose_stages, load_extractor
from energyad.features.grids import Grid, Scale, interpolation_matrix
from energyad.fitting.context import FitContext
from energyad.fitting.energies import fit_multiscale_energy, for_scale
from energyad.fitting.patches import TrainingPatches
from energyad.model.folder import HEAD_FILE
from energyad.settings import FitSettings
from tests.energy.test_categories import mean_decides
from tests.quick import TINY

FINE, COARSE = Scale(0, 2), Scale(2, 7, factor=2)
INNER = Scale(2, 7, factor=2, margin=1)
CHANNELS, SIDE = 4, 4
SETTINGS = TINY.with_values(
    {"energy.latent_dim": 12, "memory_bank.size": 20, "memory_bank.rerank_bank_size": 40}
)
NAME = "tf_efficientnet_lite0"


class MeanSquare(LatentEnergy):
    """An energy that is easily foretold."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.square().mean(dim=-1)


def an_expert(channels: int, seed: int = 0) -> PatchEnergy:
    patches = torch.randn(100, channels, generator=torch.Generator().manual_seed(seed))
    return PatchEnergy(fit_whitening(patches, latent_dim=channels), MeanSquare()).eval()


def a_product(seed: int = 0) -> MultiScaleEnergy:
    experts, shares = [an_expert(2, seed), an_expert(7, seed)], ((0.75, 0.25), (1.0, 0.0))[seed]
    return MultiScaleEnergy(experts, [FINE, COARSE], shape=(SIDE, SIDE), weights=shares)


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_coarse_patch_has_its_features_from_the_patches_that_it_covers() -> None:
    coarse = drawn(3, 7, 2, 5)
    dealt = F.pixel_shuffle(F.pad(coarse, (0, 0, 0, 0, 0, 1)), 2).permute(0, 2, 3, 1)
    grids = torch.cat([drawn(3, 4, 10, 2), dealt], dim=-1)
    assert grids.shape[-1] == COARSE.stop == CHANNELS
    assert torch.equal(COARSE.of(grids), coarse.permute(0, 2, 3, 1))
    assert torch.equal(COARSE.of(grids[:, None]), coarse.permute(0, 2, 3, 1)[:, None])
    assert torch.equal(FINE.of(grids), grids[..., :2])


def test_beyond_its_margin_a_scale_has_no_patches() -> None:
    grids = drawn(3, 2, SIDE + 4, SIDE + 2, CHANNELS)
    assert torch.equal(INNER.of(grids), COARSE.of(grids[:, :, 1:-1, 1:-1]))
    marked = torch.zeros(SIDE + 2, SIDE + 2, dtype=torch.bool)
    marked[0] = marked[:, -1] = marked[2, 1] = True
    assert INNER.any_of(marked).tolist() == [[True, False], [False, False]]
    assert INNER.shape((SIDE + 4, SIDE + 2)) == COARSE.shape((SIDE + 2, SIDE)) == (3, 2)


def test_a_coarse_patch_counts_where_any_of_its_own_does() -> None:
    patches = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    patches[1, 2] = True
    assert COARSE.any_of(patches).tolist() == [[False, True], [False, False]]
    assert torch.equal(FINE.any_of(patches), patches)
    assert COARSE.mean_of(patches.float()).tolist() == [[0, 0.25], [0, 0]]


def test_log_energies_of_scales_are_interpolated_and_averaged_by_their_shares() -> None:
    product, features = a_product(), drawn(2, SIDE, SIDE, CHANNELS)
    fine = product.scale_energies[0](features[..., :2], SIDE**2).detection
    coarse = product.scale_energies[1](COARSE.of(features), SIDE).detection.log()
    upsampled = F.interpolate(coarse[:, None], scale_factor=2, mode="bilinear")[:, 0].exp()
    torch.testing.assert_close(product(features, SIDE**2).detection, fine**0.75 * upsampled**0.25)


def test_coarser_scales_count_less_in_energies_that_localise() -> None:
    product, features = a_product(), drawn(2, SIDE, SIDE, CHANNELS)
    fine = product.scale_energies[0](features[..., :2], SIDE**2).localisation
    coarse = product.scale_energies[1](COARSE.of(features), SIDE).localisation.log()
    upsampled = F.interpolate(coarse[:, None], scale_factor=2, mode="bilinear")[:, 0].exp()
    share = 0.25 * LOCALISATION_COARSE
    torch.testing.assert_close(
        product(features, SIDE**2).localisation, fine ** (1 - share) * upsampled**share
    )


def test_scales_of_a_wide_grid_are_interpolated_along_both_axes() -> None:
    experts, shape = [an_expert(2), an_expert(7)], (4, 10)
    product = MultiScaleEnergy(experts, [FINE, COARSE], shape=shape, weights=(0.75, 0.25))
    features = drawn(2, *shape, CHANNELS)
    fine = product.scale_energies[0](features[..., :2], 40).detection
    coarse = product.scale_energies[1](COARSE.of(features), 10).detection.log()
    upsampled = F.interpolate(coarse[:, None], scale_factor=2, mode="bilinear")[:, 0].exp()
    torch.testing.assert_close(product(features, 40).detection, fine**0.75 * upsampled**0.25)


@pytest.mark.parametrize("tiles", [1, 2])
def test_beyond_its_margin_a_scale_has_its_outermost_patch_s_energy(tiles: int) -> None:
    side = SIDE + 2
    experts = [an_expert(2), an_expert(7)]
    looked_at: list[int] = []

    def look(z: torch.Tensor, energies: torch.Tensor, *, patches_per_image: int, **_: Any) -> torch.Tensor:
        looked_at.append(patches_per_image)
        return energies

    experts[1].reranker = look  # type: ignore[assignment]
    product = MultiScaleEnergy(experts, [FINE, INNER], shape=(side, side), weights=(0.75, 0.25))
    features = drawn(2 * tiles, side, side, CHANNELS)
    fine = product.scale_energies[0](features[..., :2], tiles * side**2).detection
    coarse = product.scale_energies[1](INNER.of(features), tiles * 4).detection.log()
    upsampled = F.interpolate(coarse[:, None], scale_factor=2, mode="bilinear")
    edged = F.pad(upsampled, (1, 1, 1, 1), mode="replicate")[:, 0].exp()
    looked_at.clear()
    torch.testing.assert_close(product(features, tiles * side**2).detection, fine**0.75 * edged**0.25)
    assert looked_at == [tiles * 4]


def test_of_next_to_no_energy_rounding_is_not_told() -> None:
    product, features = a_product(), drawn(2, SIDE, SIDE, CHANNELS)
    features[:, 0, 0, :2] = product.scale_energies[0].whitening.mean + torch.tensor([[1e-3], [1e-2]])
    fine = product.scale_energies[0](features[..., :2], SIDE**2).detection[:, 0, 0]
    assert 0 < fine[0] < fine[1] < ENERGY_EPS
    features[..., 2:] = features[:1, ..., 2:]
    energies = product(features, SIDE**2).detection[:, 0, 0]
    assert torch.equal(energies[0], energies[1]) and energies[0] > 0


@pytest.mark.slow
def test_of_the_image_at_half_its_size_stages_are_dealt_out_as_they_are() -> None:
    plain = load_extractor(NAME, image_size=(64, 64))
    both = load_extractor(NAME, image_size=(64, 64), coarse_strides=(8, 32))
    assert plain.scales == (Scale(0, 176),)
    assert both.scales == (Scale(0, 176), Scale(176, 40 + 192, factor=2))
    pixels = torch.randint(0, 256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(0)).byte()
    with torch.no_grad():
        found = both(pixels)
        torch.testing.assert_close(found[:, :176], plain(pixels))
        halved = F.avg_pool2d(pixels.permute(0, 3, 1, 2) / 127.5 - 1, 2)
        stages = both.backbone(halved)
    wide = F.interpolate(stages[-1], size=(4, 4), mode="bilinear")
    expected = torch.cat([stages[1], wide], dim=1)[:, :, 1:-1, 1:-1].permute(0, 2, 3, 1)
    torch.testing.assert_close(both.scales[1].of(found.permute(0, 2, 3, 1)), expected, rtol=1e-4, atol=1e-4)
    narrow = load_extractor(NAME, image_size=(64, 64), coarse_strides=(8, 32), border=8)
    assert narrow.scales[1] == Scale(176, 40 + 192, factor=2, margin=1)
    with torch.no_grad():
        torch.testing.assert_close(narrow(pixels)[:, :, 1:-1, 1:-1], found)


@pytest.mark.slow
def test_a_network_for_images_of_one_size_sees_no_smaller_ones() -> None:
    assert choose_stages("swin_tiny_patch4_window7_224", (4, 8, 16), (8, 16, 32)).half == ()
    assert choose_stages("resnet18", (8, 16), (8, 16, 32)) == Stages((2, 3, 4), (0, 1), (0, 1, 2), 8)


@pytest.mark.slow
def test_patches_of_every_scale_are_seen_as_often_and_of_fewer_are_fewer_prototypes() -> None:
    settings = FitSettings().with_values(
        {
            "energy.pretrain_steps": 30,
            "dxmi.iterations": 8,
            "dxmi.decay_iterations": 400,
            "dxmi.pretrain_iterations": 10,
            "memory_bank.size": 101,
        }
    )
    wide = for_scale(settings, COARSE)
    assert (
        wide.memory_bank.size == 51
        and for_scale(settings.with_values({"memory_bank.size": 0}), COARSE).memory_bank.size == 0
    )
    assert (wide.energy.pretrain_steps, wide.dxmi.iterations, wide.dxmi.decay_iterations) == (8, 2, 100)
    assert for_scale(settings, FINE) == settings
    good = [
        TrainingPatches(
            drawn(4, 16, each.num_channels).half(), *[drawn(1, 16, each.num_channels).half()] * 2, drawn(0, 7)
        )
        for each in (FINE, COARSE)
    ]
    small = SETTINGS.with_values(
        {"dxmi.iterations": 8, "dxmi.pretrain_iterations": 10, "synthetic_defects.per_image": 0}
    )
    grid = Grid.square(image_size=32, size=4, margin=0)
    session: Any = None  # patches are given
    context = FitContext(settings=small, session=session, grid=grid, scales=(FINE, COARSE))
    _, trainings = fit_multiscale_energy(good, context, context.generator())
    assert [training.history[-1].iteration for training in trainings] == [8, 2]


def test_interpolation_keeps_what_is_even() -> None:
    matrix = interpolation_matrix(3, 12).float()
    torch.testing.assert_close(matrix.sum(dim=1), torch.ones(12))
    torch.testing.assert_close(matrix @ torch.arange(3.0), torch.clamp(torch.arange(12) / 4 - 0.375, 0, 2))


@pytest.mark.parametrize("tiles", [1, 2])
def test_of_several_categories_each_is_judged_by_its_own_product(tiles: int) -> None:
    products = [a_product(seed) for seed in range(2)]
    numbers = torch.tensor([1, 0, 1])
    features = drawn(3 * tiles, SIDE, SIDE, CHANNELS) + numbers.repeat_interleave(tiles)[:, None, None, None]
    experts = stack_categories(products, mean_decides_of(CHANNELS), units=None).requires_grad_(False)
    energies, category = experts.predict(features, tiles * SIDE**2)
    assert category.tolist() == numbers.tolist()
    for place, number in enumerate(numbers):
        own = slice(place * tiles, (place + 1) * tiles)
        alone = products[number](features[own], tiles * SIDE**2)
        torch.testing.assert_close([part[own] for part in energies], [*alone])


def test_beside_a_category_of_more_scales_one_is_judged_as_by_itself() -> None:
    judges = [an_expert(2), a_product().eval()]
    features = drawn(2, SIDE, SIDE, CHANNELS) + torch.tensor([0.0, 1.0])[:, None, None, None]
    experts = stack_categories(judges, mean_decides_of(CHANNELS), units=None).requires_grad_(False)
    energies, category = experts.predict(features, SIDE**2)
    assert category.tolist() == [0, 1]
    assert safetensors.torch.save(dict(experts.state_dict()))  # which refuses weights that share their memory
    alone = [part.clamp_min(ENERGY_EPS) for part in judges[0](features[:1, ..., :2], SIDE**2)]
    torch.testing.assert_close([part[:1] for part in energies], alone)
    torch.testing.assert_close([part[1:] for part in energies], [*judges[1](features[1:], SIDE**2)])


def mean_decides_of(channels: int) -> Any:
    rule = mean_decides(2)
    return type(rule)(
        torch.zeros(channels), rule.axes[:1].repeat(channels, 1) * len(rule.axes) / channels, rule.offsets
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:only")
def test_a_model_of_scales_survives_its_folder_and_scores_alike_on_every_engine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = [render_good(0, "train", index, size=96) for index in range(8)]
    area = np.zeros((96, 96), dtype=bool)
    area[:, :80] = True
    model = AnomalyDetector.fit(parts, settings=SETTINGS, threads=1, roi=area)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not told, "exporters' notes are for their own developers"
    tensors = safetensors.torch.load(model.contents[HEAD_FILE])
    sizes_by_scale = {
        name.split(".")[-3]: tensor.shape[-1]
        for name, tensor in tensors.items()
        if name.endswith(".latent_energy.weight")
    }
    count = SETTINGS.memory_bank.size
    assert sizes_by_scale == {"0": count, "1": count // 2}
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
    model = empty_backbone(NAME, out_indices=(1, 2, 3, 4), image_size=64).eval()
    plain = timm.create_model(NAME, features_only=True, out_indices=(1, 2, 3, 4)).eval()
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
    fine = timm.create_model(NAME, features_only=True, out_indices=(1, 2, 3))
    other = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    assert without_last_stack(fine) is fine and without_last_stack(other) is other
