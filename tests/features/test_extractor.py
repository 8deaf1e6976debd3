from __future__ import annotations

import pytest
import timm
import torch
from torch.nn import functional as F

from energyad.errors import BackboneError, SettingsError
from energyad.features.backbone_spec import BackboneSpec
from energyad.features.extractor import (
    FeatureExtractor,
    Stages,
    choose_stages,
    empty_extractor,
    load_extractor,
)
from energyad.features.grids import Grid, GridAxis, make_grid, resampling_matrix

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor(NAME, image_size=(128, 128))


def test_strides_choose_stages_and_the_middle_one_the_grid() -> None:
    assert choose_stages(NAME, (4, 8, 16)) == Stages((1, 2, 4 - 1), (0, 1, 2), (), 8)
    assert choose_stages("resnet18", (8, 16)) == Stages((2, 3), (0, 1), (), 8)


def test_a_transformer_of_one_stride_gives_its_last_stages() -> None:
    stages = choose_stages("vit_tiny_patch16_224", (4, 8, 16), (8, 16, 32))
    assert len(stages.indices) == 3 and stages.stride == 16 and stages.half == ()


def test_a_model_without_feature_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*args: object, **kwargs: object) -> None:
        raise RuntimeError("features_only not implemented")

    monkeypatch.setattr(timm, "create_model", refuses)
    with pytest.raises(BackboneError, match="gives no feature maps"):
        choose_stages("resnet18", (4, 8, 16))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_networks_of_every_layout_give_one_grid(name: str) -> None:
    strides, image_size = (4, 8, 16), 224
    stages = choose_stages(name, strides)
    weights = BackboneSpec(name, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "none", "")
    extractor = empty_extractor(weights, image_size=(image_size, image_size), strides=strides)
    features = extractor(torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8))
    channels = sum(extractor.backbone.feature_info.channels()[-len(stages.indices) :])
    assert features.shape == (1, channels, *extractor.grid.inner)


def test_features_are_one_vector_an_inner_patch(extractor: FeatureExtractor) -> None:
    pixels = torch.zeros(2, 128, 128, 3, dtype=torch.uint8)
    assert extractor(pixels).shape == (2, 24 + 40 + 112, 12, 12)


def test_the_wider_the_border_the_less_strange_is_a_constant_image_s_strangest_patch(
    extractor: FeatureExtractor,
) -> None:
    """The backbone pads with zeros; most of what that does to the outer patches is cut off."""

    def strangest(margin: int) -> float:
        grid = Grid.square(128, 16, margin)
        own = FeatureExtractor(extractor.backbone, extractor.weights, grid=grid, stages=extractor.stages)
        features = own(torch.full((1, 128, 128, 3), 200, dtype=torch.uint8))[0]
        return float((features - features[:, 7:8, 7:8]).norm(dim=0).max())

    none, one, two = map(strangest, range(3))
    assert two < 0.95 * one and one < 0.85 * none and two < 0.75 * none


def test_a_change_in_the_image_changes_the_patches_there_most(extractor: FeatureExtractor) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8, generator=generator)
    changed = pixels.clone()
    changed[:, 76:84, 44:52] = 255  # rows 76 to 83, columns 44 to 51: patch (10 - 2, 6 - 2) of the inner grid
    difference = (extractor(changed) - extractor(pixels)).norm(dim=1)[0]
    row, column = divmod(int(difference.argmax()), 12)
    assert abs(row - 7.5) <= 1 and abs(column - 3.5) <= 1


@pytest.mark.parametrize(("image_size", "inner"), [((64, 192), (4, 20)), ((192, 96), (20, 8))])
def test_of_a_wide_and_of_a_tall_input_a_patch_lies_where_its_pixels_do(
    extractor: FeatureExtractor, image_size: tuple[int, int], inner: tuple[int, int]
) -> None:
    grid = make_grid(image_size, 8, border=16)
    shaped = FeatureExtractor(extractor.backbone, extractor.weights, grid=grid, stages=extractor.stages)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, *image_size, 3), dtype=torch.uint8, generator=generator)
    changed = pixels.clone()
    changed[:, 28:36, 44:52] = 255
    difference = (shaped(changed) - shaped(pixels)).norm(dim=1)[0]
    assert difference.shape == inner == grid.inner
    row, column = divmod(int(difference.argmax()), inner[1])
    assert abs(row - 1.5) <= 1 and abs(column - 3.5) <= 1


def test_a_batch_is_scored_as_its_images_alone(extractor: FeatureExtractor) -> None:
    pixels = torch.randint(
        0, 256, (3, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    together, alone = extractor(pixels), torch.cat([extractor(p[None]) for p in pixels])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [0, 33, 250])
def test_an_image_size_that_strides_do_not_divide_is_refused(size: int) -> None:
    with pytest.raises(SettingsError, match="multiple of 32"):
        make_grid((256, size), 8, border=8)


def test_patches_that_lie_in_the_border_are_left_out() -> None:
    rings = [
        make_grid((256, 256), stride, border=border).rows.margin
        for stride, border in ((8, 8), (8, 16), (16, 8), (4, 8), (8, 0))
    ]
    assert rings == [1, 2, 0, 2, 0]
    with pytest.raises(SettingsError, match="border 32: leaves nothing of 64 pixels"):
        make_grid((256, 64), 8, border=32)
    assert (
        make_grid((256, 256), 8, border=8).coarser()
        == Grid.square(256, 16, 1)
        == make_grid((256, 256), 8, border=16).coarser()
    )
    for too_small in (Grid.square(224, 7, 1), Grid.square(64, 4, 1), make_grid((64, 256), 16, border=16)):
        assert too_small.coarser() == too_small


@pytest.mark.parametrize("size", [64, 32, 16])
def test_resampling_averages_fine_stages_interpolates_coarse_ones_and_leaves_out_the_margin(
    size: int,
) -> None:
    axis = GridAxis(pixels=256, patches=32, margin=2)
    stage = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    matrix = resampling_matrix(size, axis)
    if size >= axis.patches:
        near = F.avg_pool2d(stage, 3, stride=1, padding=1, count_include_pad=False)
        common = F.avg_pool2d(near, size // axis.patches)
    else:
        common = F.interpolate(stage, size=(axis.patches, axis.patches), mode="bilinear", align_corners=False)
    torch.testing.assert_close(matrix @ stage @ matrix.T, common[:, :, 2:-2, 2:-2], atol=1e-6, rtol=1e-5)
