from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energyad.errors import SettingsError
from energyad.images.input_shape import (
    AUTO_SIDES,
    MAX_ASPECT,
    MAX_ENLARGEMENT,
    MIN_SIDE,
    STEP,
    InputShape,
    find_input_shape,
    parse_image_size,
)
from energyad.images.tiling import Tiles


def shape_of(height: int, width: int, side: int = 256) -> InputShape:
    return find_input_shape([(height, width)] * 5, side, tile_overlap=0.25)


def auto_shape_of(height: int, width: int) -> InputShape:
    return find_input_shape([(height, width)] * 5, "auto", tile_overlap=0.25)


@pytest.mark.parametrize("pixels", [64, 512, 4096])
@pytest.mark.parametrize("side", [64, 256, 384])
def test_square_images_get_the_square(pixels: int, side: int) -> None:
    assert shape_of(pixels, pixels, side) == InputShape((side, side))


@settings(max_examples=50, deadline=None)
@given(aspect=st.floats(1, MAX_ASPECT), side=st.sampled_from([192, 256, 384, 512]), is_tall=st.booleans())
def test_an_input_has_the_images_aspect_and_the_squares_number_of_pixels(
    aspect: float, side: int, is_tall: bool
) -> None:
    image = (round(1000 * aspect), 1000) if is_tall else (1000, round(1000 * aspect))
    shape = shape_of(*image, side)
    (height, width), (rows, columns) = shape.image_size, shape.tiles
    assert height % STEP == width % STEP == 0 and min(height, width) >= MIN_SIDE
    assert rows == columns == 1 and not shape.is_mixed
    assert 0.749 < (height / width) / (image[0] / image[1]) < 1.335  # of few steps, at most a third off
    assert 0.8 < height * width / side**2 < 1.25


def test_a_tall_image_has_the_input_of_a_wide_one_on_its_side() -> None:
    assert shape_of(480, 640) == InputShape((224, 288))
    assert shape_of(640, 480) == InputShape((288, 224))
    assert shape_of(400, 1000) == InputShape((160, 416))


@pytest.mark.parametrize("aspect", [5, 8, 12, 30])
def test_panoramas_are_cut_into_tiles_along_their_length(aspect: int) -> None:
    wide, tall = shape_of(500, 500 * aspect), shape_of(500 * aspect, 500)
    assert wide.tiles == tall.tiles[::-1] and wide.image_size == tall.image_size[::-1]
    rows, columns = wide.tiles
    assert rows == 1 and columns > 1
    assert wide.image_size[0] == 128 and wide.image_size[1] <= MAX_ASPECT * 128 + STEP
    height, width = Tiles(rows=rows, columns=columns, overlap=0.25).shape(wide.image_size)
    assert width / height == pytest.approx(aspect, rel=0.1)


@pytest.mark.parametrize(
    ("own_side", "side"),
    [(8, 64), (24, 192), (40, 256), (256, 256), (300, 288), (319, 288), (320, 320), (4096, 320)],
)
def test_auto_takes_as_many_pixels_as_square_images_have_within_bounds(own_side: int, side: int) -> None:
    assert auto_shape_of(own_side, own_side) == InputShape((side, side))


@settings(max_examples=50, deadline=None)
@given(height=st.integers(32, 2000), width=st.integers(32, 2000))
def test_auto_enlarges_no_image_beyond_the_smallest_input_and_is_as_large_as_that(
    height: int, width: int
) -> None:
    shape = auto_shape_of(height, width)
    rows, columns = shape.tiles
    tiles = Tiles(rows=rows, columns=columns, overlap=0.25)
    smallest, largest = shape_of(height, width), shape_of(height, width, max(AUTO_SIDES))
    if shape.tiles == (1, 1) == smallest.tiles:
        pixels = math.prod(shape.image_size)
        assert math.prod(smallest.image_size) <= pixels <= math.prod(largest.image_size)
        assert pixels <= max(math.prod(smallest.image_size), 1.25 * height * width)
    else:
        assert min(tiles.shape(shape.image_size)) <= max(min(smallest.image_size), min(height, width))


def test_auto_goes_by_the_shorter_sides_of_images_of_many_aspects() -> None:
    shapes = [(260, 400), (400, 260)] * 5
    assert find_input_shape(shapes, "auto", tile_overlap=0.25) == InputShape((256, 256), is_mixed=True)
    shapes = [(300, 500), (500, 300)] * 5
    assert find_input_shape(shapes, "auto", tile_overlap=0.25) == InputShape((288, 288), is_mixed=True)


def test_a_few_odd_images_leave_the_shape_as_it_is_and_many_make_it_a_square() -> None:
    usual, odd = (480, 640), (640, 480)
    assert find_input_shape([usual] * 9 + [odd], 256, tile_overlap=0.25) == shape_of(*usual)
    mixed = find_input_shape([usual] * 5 + [odd] * 5, 256, tile_overlap=0.25)
    assert mixed == InputShape((256, 256), is_mixed=True)


def test_small_images_are_enlarged_no_further_than_pays() -> None:
    height, width = shape_of(12, 20).image_size
    assert math.sqrt(height * width / (12 * 20)) < 1.2 * MAX_ENLARGEMENT
    assert shape_of(16, 16).image_size == (128, 128)
    assert shape_of(2, 2).image_size == (MIN_SIDE, MIN_SIDE)


def test_an_image_size_is_written_as_one_number_or_height_by_width() -> None:
    assert parse_image_size("256") == 256
    assert parse_image_size("auto") == "auto"
    assert parse_image_size("192x320") == parse_image_size("192×320") == (192, 320)
    for text in ("", "x", "2x", "-1", "2x3x4", "²", "1.5", "automatic"):
        with pytest.raises(SettingsError, match="image size"):
            parse_image_size(text)
