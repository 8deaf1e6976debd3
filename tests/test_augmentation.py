from __future__ import annotations

import numpy as np
import pytest

from energyad.augmentation import relight


@pytest.fixture
def ramp() -> np.ndarray:
    return np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)


def test_no_strength_leaves_the_image_alone(ramp: np.ndarray) -> None:
    assert (relight(ramp, strength=0.0, rng=np.random.default_rng(0)) == ramp).all()


def test_light_keeps_the_order_of_grey_values_and_changes_all_channels_alike(ramp: np.ndarray) -> None:
    lit = relight(ramp, strength=0.3, rng=np.random.default_rng(1))
    assert (np.diff(lit[..., 0].ravel().astype(int)) >= 0).all()
    assert (lit == lit[..., :1]).all()
    assert (lit != ramp).any()


def test_light_is_as_often_brighter_as_darker_and_never_beyond_its_strength(ramp: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    middle = [relight(ramp[:8], strength=0.2, rng=rng).mean() / ramp[:8].mean() for _ in range(200)]
    assert 0.35 < np.mean(np.array(middle) > 1) < 0.65
    # Gain and gamma together, gamma's effect being strongest on dark pixels.
    assert np.exp(-0.8) < min(middle) < max(middle) < np.exp(0.8)
