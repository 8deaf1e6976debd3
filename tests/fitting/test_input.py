from __future__ import annotations

import warnings

import pytest

from energyad.fitting.fit import shape_input
from energyad.settings import FitSettings

SIDE_256 = FitSettings().with_values({"input.image_size": 256})
WIDE, TALL = [(480, 640)] * 8, [(640, 480)] * 8


def test_a_side_becomes_the_images_shape_and_the_square_of_square_images() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert shape_input(SIDE_256, WIDE).input.shape == (224, 288)
        assert shape_input(SIDE_256, [(512, 512)] * 8).input.shape == (256, 256)


def test_the_default_takes_the_pixels_that_the_images_have_from_256_to_320_a_side() -> None:
    for own_side, side in ((200, 256), (300, 288), (512, 320)):
        assert shape_input(FitSettings(), [(own_side, own_side)] * 8).input.image_size == (side, side)
    assert shape_input(FitSettings(), WIDE).input.shape == (288, 384)


@pytest.mark.parametrize("values", [{"input.tiles": (2, 2)}, {"features.backbone": "vit_tiny_patch16_224"}])
def test_no_size_stays_open_where_the_images_do_not_choose_it(values: dict[str, object]) -> None:
    settings = FitSettings().with_values(values)
    assert shape_input(settings, TALL).input.image_size == (256, 256)


def test_a_panorama_gets_tiles() -> None:
    settings = shape_input(FitSettings(), [(100, 1200)] * 8)
    assert settings.input.tiling.columns > 1 and settings.input.tiling.rows == 1
    height, width = settings.input.shape
    assert width / height == pytest.approx(12, rel=0.1)


@pytest.mark.parametrize(
    "values",
    [
        {"input.image_size": (192, 320)},
        {"input.tiles": (2, 2), "input.image_size": 256},
        {"features.backbone": "vit_tiny_patch16_224", "input.image_size": 224},
    ],
)
def test_what_is_set_by_hand_and_the_square_of_a_fixed_backbone_stay(values: dict[str, object]) -> None:
    settings = FitSettings().with_values(values)
    assert shape_input(settings, TALL) == settings


def test_mixed_shapes_are_a_square_and_said_in_one_line() -> None:
    with pytest.warns(UserWarning, match="differ in aspect"):
        assert shape_input(SIDE_256, WIDE + TALL).input.shape == (256, 256)
