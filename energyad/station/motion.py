"""A part that comes into view: an area of the frame that differs from its reference, the empty place."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32, UInt

from energyad.station.config import MotionConfig

SIDE: Final = 64
"""Pixels of the area's longer side, once it is made small: noise is averaged away."""
LEAVING_SHARE: Final = 0.5
"""Of the change that a part makes: below it, the part has gone."""
RELEARN_SECONDS: Final = 60.0
"""What stands still for so long is the empty place from then on, as after a lamp was switched on."""
_LEARNING_RATE: Final = 0.05
_WHITES: Final = (255, 1023, 4095, 16383, 65535)


class MotionDetector:
    """Says when a part comes into view.

    The reference is the area of the first frame; while no part is there, it follows slow changes of the light.

    Args:
        config: The area, and how large a change is a part.
    """

    def __init__(self, config: MotionConfig) -> None:
        self._config = config
        self._reference: Float32[np.ndarray, "rows columns"] | None = None
        self._before: Float32[np.ndarray, "rows columns"] | None = None
        self._white = _WHITES[0]
        self._is_present = False
        self._moved = 0.0

    def sees(self, frame: UInt[np.ndarray, "h w c"], moment: float) -> bool:
        """Return whether a part came into view with this frame.

        Args:
            frame: Of the camera; of any depth.
            moment: When it came, by the monotonic clock.
        """
        self._white = next(
            (white for white in _WHITES if frame.max() <= white and white >= self._white), _WHITES[-1]
        )
        area = self._area(frame)
        before, self._before = self._before, area
        if self._reference is None or before is None or self._reference.shape != area.shape:
            self._reference, self._moved = area, moment
            return False
        if self._change(area, before) >= LEAVING_SHARE * self._config.change:
            self._moved = moment
        change = self._change(area, self._reference)
        was_present = self._is_present
        limit = LEAVING_SHARE * self._config.change if was_present else self._config.change
        self._is_present = change >= limit
        if not self._is_present:
            self._reference = self._reference + _LEARNING_RATE * (area - self._reference)
        elif was_present and moment - self._moved >= RELEARN_SECONDS:
            self._reference, self._is_present = area, False
        return self._is_present and not was_present

    def _change(self, area: Float32[np.ndarray, "h w"], other: Float32[np.ndarray, "h w"]) -> float:
        """Mean difference, as a share of white."""
        return float(np.abs(area - other).mean()) / self._white

    def _area(self, frame: UInt[np.ndarray, "h w c"]) -> Float32[np.ndarray, "rows columns"]:
        height, width = frame.shape[:2]
        left, top, right, bottom = self._config.area
        part = frame[
            int(top * height) : max(int(top * height) + 1, int(bottom * height)),
            int(left * width) : max(int(left * width) + 1, int(right * width)),
        ]
        scale = min(1.0, SIDE / max(part.shape[:2]))
        size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
        small = cv2.resize(part, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        return small if small.ndim == 2 else small.mean(axis=2)
