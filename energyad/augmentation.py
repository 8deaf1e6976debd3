"""Good parts under other light: what a line's lamps and exposures will do to them anyway."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8


def relight(
    pixels: UInt8[np.ndarray, "h w 3"], *, strength: float, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with another exposure and gamma, both drawn log-uniformly from exp(±strength).

    A darker good part is still a good part; an energy that has seen training's light alone takes it for a defect.
    """
    gain, gamma = np.exp(rng.uniform(-strength, strength, size=2))
    table = 255 * gain * (np.arange(256) / 255) ** gamma
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[pixels]
