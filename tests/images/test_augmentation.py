from __future__ import annotations

import numpy as np
import pytest

from energyad.images.augmentation import photometric_jitter, random_rotation


@pytest.fixture
def ramp() -> np.ndarray:
    return np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)


def test_no_strength_leaves_the_image_alone(ramp: np.ndarray) -> None:
    assert (photometric_jitter(ramp, strength=0.0, rng=np.random.default_rng(0)) == ramp).all()


def test_light_keeps_the_order_of_grey_values_and_changes_all_channels_alike(ramp: np.ndarray) -> None:
    lit = photometric_jitter(ramp, strength=0.3, rng=np.random.default_rng(1))
    assert (np.diff(lit[..., 0].ravel().astype(int)) >= 0).all()
    assert (lit == lit[..., :1]).all()
    assert (lit != ramp).any()


def test_light_is_as_often_brighter_as_darker_and_never_beyond_its_strength(ramp: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    middle = [
        photometric_jitter(ramp[:8], strength=0.2, rng=rng).mean() / ramp[:8].mean() for _ in range(200)
    ]
    assert 0.35 < np.mean(np.array(middle) > 1) < 0.65
    # Gain and gamma together, gamma's effect being strongest on dark pixels.
    assert np.exp(-0.8) < min(middle) < max(middle) < np.exp(0.8)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_turning_keeps_the_shape_and_what_lies_in_the_middle(channels: tuple[int, ...]) -> None:
    y, x = np.mgrid[0:96, 0:128]
    disc = np.where(np.hypot(y - 47.5, x - 63.5) < 30, 200, 50).astype(np.uint8)
    disc = np.broadcast_to(disc.reshape(96, 128, *(1 for _ in channels)), (96, 128, *channels)).copy()
    copy = random_rotation(disc, rng=np.random.default_rng(0))
    assert copy.shape == disc.shape and copy.dtype == np.uint8
    edge = np.abs(np.hypot(y - 47.5, x - 63.5) - 30) < 2
    inside = np.hypot(y - 47.5, x - 63.5) < 45
    assert (copy == disc)[inside & ~edge].all()


def test_any_direction_is_as_likely_as_any_other() -> None:
    pointer = np.zeros((65, 65), np.uint8)
    pointer[:24, 30:35] = 255
    rng, y, x = np.random.default_rng(3), *np.mgrid[-32:33, -32:33]
    copies = [random_rotation(pointer, rng=rng) * (np.hypot(y, x) <= 32) for _ in range(400)]
    bearing = np.array([np.angle(((x + 1j * y) * copy).sum()) for copy in copies])
    assert np.abs(np.exp(1j * bearing).mean()) < 0.15 and np.abs(np.exp(2j * bearing).mean()) < 0.15
