"""Laws of planted defects: exact masks, nothing else touched, visible, on the part, the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energyad.data import defects
from energyad.data.defect_kinds import KINDS
from energyad.data.defects import draw_defect, saliency
from energyad.data.demo import render_good
from energyad.errors import SettingsError

PART = render_good(0, "train", 0, size=128)
OTHER = render_good(0, "train", 1, size=128)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(KINDS)), st.booleans())
def test_only_the_mask_is_touched_and_it_is_visibly_changed(seed: int, kind: str, foreign: bool) -> None:
    rng = np.random.default_rng(seed)
    planted = draw_defect(PART, rng=rng, kind=kind, source=OTHER if foreign else None)
    change = np.abs(planted.image.astype(float) - PART).max(axis=2)
    assert (change[~planted.mask] == 0).all()
    assert change[planted.mask].mean() > 2.0
    assert 6 <= planted.mask.sum() < 0.35 * planted.mask.size
    assert planted.image.dtype == np.uint8


@pytest.mark.parametrize("kind", KINDS)
def test_the_part_of_an_image_that_a_defect_is_drawn_in_holds_all_of_it(kind: str) -> None:
    """However large the image: nothing is cut off where that part ends."""
    image = np.random.default_rng(0).integers(0, 255, (300, 420, 3), dtype=np.uint8)
    places = np.zeros(image.shape[:2], np.float32)
    places[150, 210] = 1
    for seed in range(40):
        rng = np.random.default_rng(seed)
        site, window = defects._draw_site(places, np.float32(1), rng)
        part = image[window].astype(np.float32)
        _, coverage = KINDS[kind](part, part, site, rng)
        assert coverage.shape == part.shape[:2] and coverage.max() > 0.2
        for edge in (coverage[0], coverage[-1], coverage[:, 0], coverage[:, -1]):
            assert edge.max() < 0.2


def test_a_foreign_texture_is_the_image_flipped_and_rolled() -> None:
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    window = (slice(5, 31), slice(22, 60))
    found = set()
    for seed in range(12):
        texture = defects._ForeignTexture.drawn(image, image.shape[:2], np.random.default_rng(seed))
        whole = np.roll(image[:: texture.flips[0], :: texture.flips[1]], texture.shift, axis=(0, 1))
        np.testing.assert_array_equal(texture.of(window), whole[window])
        found.add(texture.flips)
    assert len(found) == 4


def test_places_are_drawn_as_often_as_they_are_likely() -> None:
    places = np.array([[0.0, 0.1, 0.0, 0.2], [0.0, 0.0, 0.0, 0.0], [0.4, 0.0, 0.3, 0.0]], np.float32)
    rng, counts = np.random.default_rng(0), np.zeros_like(places)
    for _ in range(4000):
        site, window = defects._draw_site(places, np.float32(0), rng)
        middle = np.unravel_index(np.hypot(site.u, site.v).argmin(), site.u.shape)
        counts[window[0].start + middle[0], window[1].start + middle[1]] += 1
    np.testing.assert_allclose(counts / 4000, places, atol=0.03)


def test_the_same_generator_state_gives_the_same_defect_and_the_input_stays() -> None:
    before = PART.copy()
    for seed in range(12):
        first, second = (draw_defect(PART, rng=np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.mask, second.mask)
        assert first.kind == second.kind
    np.testing.assert_array_equal(PART, before)


@pytest.mark.slow
def test_kinds_come_about_equally_often() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_defect(PART, rng=rng).kind for _ in range(360)]
    assert all(12 <= drawn.count(kind) <= 60 for kind in KINDS)


def test_sizes_run_from_tiny_to_moderate() -> None:
    rng = np.random.default_rng(0)
    areas = [draw_defect(PART, rng=rng).mask.mean() for _ in range(120)]
    assert np.quantile(areas, 0.1) < 0.003
    assert 0.01 < np.quantile(areas, 0.9) < 0.12


def test_defects_lie_on_the_part_more_often_than_chance() -> None:
    image = np.full((128, 128, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    image[50:80, 40:90] = rng.integers(0, 255, (30, 50, 3))
    share = (30 * 50) / 128**2
    places = saliency(image)
    assert abs(places.sum() - 1) < 1e-3
    assert places.min() > 0
    assert places[45:85, 35:95].sum() > 0.8 > 5 * share


def test_a_texture_that_fills_the_image_has_no_preferred_half() -> None:
    image = np.random.default_rng(0).integers(0, 255, (160, 96, 3), dtype=np.uint8)
    places = saliency(image)
    assert 0.42 < places[:80].sum() < 0.58


@pytest.mark.parametrize("shape", [(32, 32), (40, 200), (300, 33)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_shape_and_even_a_flat_image_gets_a_visible_defect(shape: tuple[int, int], kind: str) -> None:
    for level in (0, 120, 255):
        flat = np.full((*shape, 3), level, np.uint8)
        planted = draw_defect(flat, rng=np.random.default_rng(1), kind=kind)
        assert planted.image.shape == flat.shape
        assert planted.mask.any()
        assert planted.kind in {kind, "spot"}


def test_a_source_of_another_size_is_fitted() -> None:
    planted = draw_defect(PART, rng=np.random.default_rng(0), kind="patch", source=OTHER[:50])
    assert planted.image.shape == PART.shape


def test_grey_parts_get_grey_defects() -> None:
    grey = np.repeat(PART[:, :, :1], 3, axis=2)
    rng = np.random.default_rng(0)
    for kind in KINDS:
        for _ in range(10):
            assert np.ptp(draw_defect(grey, rng=rng, kind=kind).image.astype(int), axis=2).max() <= 1


def test_unknown_kinds_and_tiny_images_are_errors() -> None:
    with pytest.raises(SettingsError, match=r"'dent' is no kind.*warp"):
        draw_defect(PART, rng=np.random.default_rng(0), kind="dent")
    with pytest.raises(SettingsError, match="20 x 31"):
        draw_defect(PART[:31, :20], rng=np.random.default_rng(0))
