"""Frame checks on real images: what each disturbance is called, with limits of good parts that are not among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from energyad.images.finding import find_images
from energyad.images.reading import read_image
from energyad.station.frames import fault_of, learn_limits, measure_frame

SAMPLES: Final = 20
Image = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Called:
    """What the frames of a category with one disturbance are called.

    Attributes:
        category: The category.
        disturbance: What was done to the frames; "none" for them as they are, defective ones among them.
        frames: How many.
        called: How many are called what; `None` for those that can be judged.
    """

    category: str
    disturbance: str
    frames: int
    called: dict[str, int]


def _empty(image: Image) -> Image:
    """The colour of the upper edge, with the noise of a camera."""
    colour = np.median(image[:8].reshape(-1, 3), axis=0)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def _blurred(share: float) -> Callable[[Image], Image]:
    return lambda image: cv2.GaussianBlur(image, (0, 0), share * max(image.shape[:2]))


DISTURBANCES: Final[dict[str, Callable[[Image], Image]]] = {
    "none": lambda image: image,
    "light at 20 %": lambda image: (image * 0.2).astype(np.uint8),
    "light at 500 %": lambda image: np.clip(image.astype(np.float32) * 5, 0, 255).astype(np.uint8),
    "empty": _empty,
    "blurred by 1 % of the longer side": _blurred(0.01),
    "blurred by 2 % of the longer side": _blurred(0.02),
}


def measure(root: Path) -> list[Called]:
    """Measure a category in MVTec's layout.

    Args:
        root: Its folder. Limits come from the first good parts of `train`; frames are those of `test`.
    """
    samples = find_images([root / "train" / "good"])[:SAMPLES]
    limits = learn_limits([measure_frame(read_image(path)) for path in samples])
    frames = [read_image(path) for path in find_images([root / "test"])]
    rows = []
    for name, disturb in DISTURBANCES.items():
        called = Counter(str(fault_of(measure_frame(disturb(frame)), limits)) for frame in frames)
        rows.append(Called(root.name, name, len(frames), dict(sorted(called.items()))))
    return rows
