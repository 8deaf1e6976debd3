"""Good parts under other light and in other directions: what a line will do to them anyway."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8


def photometric_jitter(
    pixels: UInt8[np.ndarray, "h w 3"], *, strength: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with another exposure and gamma, both drawn log-uniformly from exp(±strength).

    A darker good part is still a good part; an energy that has seen training's light alone takes it for a defect.
    """
    gain, gamma = np.exp(rng.uniform(-strength, strength, size=2))
    table = 255 * gain * (np.arange(256) / 255) ** gamma
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[pixels]


def random_rotation(
    pixels: UInt8[np.ndarray, "h w *c"], *, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w *c"]:
    """The image rotated about its centre by any angle; beyond its border its outermost pixels go on."""
    height, width = pixels.shape[:2]
    move = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rng.uniform(0, 360), 1.0)
    rotated = cv2.warpAffine(pixels, move, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return rotated.astype(np.uint8, copy=False)
