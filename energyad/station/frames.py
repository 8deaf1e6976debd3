"""Whether a frame shows a part well enough to be judged: not dark, not saturated, with a part in it, and sharp.

Each quantity is measured on the grey image with its longer side at `SIDE` pixels. Limits come from images of good
parts, with a wide margin: a frame is called faulty only where no model could be right about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import UInt8

from energyad.errors import DataError
from energyad.station.config import ChecksConfig

Fault: TypeAlias = Literal["dark", "saturated", "no_part", "blurred"]
FAULTS: Final[tuple[Fault, ...]] = ("dark", "saturated", "no_part", "blurred")
SIDE: Final = 256
SATURATED: Final = 250
"""Grey values from which on a pixel counts as saturated."""
_COARSE: Final = SIDE / 64
"""Standard deviation of the blur that leaves the part's shape alone, pixels."""
MIN_SAMPLES: Final = 3


@dataclass(frozen=True)
class FrameQuality:
    """What is measured of a frame.

    Attributes:
        brightness: Mean grey value, 0 to 255.
        saturated: Share of saturated pixels.
        structure: Standard deviation of the blurred grey image: of an empty background it is small.
        sharpness: Standard deviation of the Laplacian.
    """

    brightness: float
    saturated: float
    structure: float
    sharpness: float


def measure_frame(pixels: UInt8[np.ndarray, "h w 3"]) -> FrameQuality:
    """Measure a frame.

    Args:
        pixels: RGB.
    """
    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    coarse = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _COARSE * max(grey.shape) / SIDE)
    return FrameQuality(
        brightness=float(grey.mean()),
        saturated=float((grey >= SATURATED).mean()),
        structure=float(coarse.std()),
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).std()),
    )


def fault_of(quality: FrameQuality, limits: ChecksConfig) -> Fault | None:
    """Return what is wrong with a frame, the first of `FAULTS`; None for one that can be judged."""

    def is_below(value: float, limit: float | None) -> bool:
        return limit is not None and value < limit

    if is_below(quality.brightness, limits.min_brightness):
        return "dark"
    if limits.max_saturated is not None and quality.saturated > limits.max_saturated:
        return "saturated"
    if is_below(quality.structure, limits.min_structure):
        return "no_part"
    return "blurred" if is_below(quality.sharpness, limits.min_sharpness) else None


def learn_limits(samples: Sequence[FrameQuality]) -> ChecksConfig:
    """Choose limits: half of the lowest brightness, structure and sharpness of good parts; of saturated pixels a
    quarter of the way from the whitest good part to all white.

    Raises:
        DataError: The samples are too few.
    """
    if len(samples) < MIN_SAMPLES:
        raise DataError(
            f"{len(samples)} sample images: limits need {MIN_SAMPLES}; give a folder with more good parts"
        )
    highest = max(sample.saturated for sample in samples)
    return ChecksConfig(
        min_brightness=_rounded(min(sample.brightness for sample in samples) / 2),
        max_saturated=_rounded(highest + (1 - highest) / 4),
        min_structure=_rounded(min(sample.structure for sample in samples) / 2),
        min_sharpness=_rounded(min(sample.sharpness for sample in samples) / 2),
    )


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
