"""Heatmap → colours over the image, on one scale for all images of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from energyad.scoring.prediction import Prediction

# Position on the scale → RGB. Cold below the threshold, at 0.5, and warm above it, with a step between them: whether
# a place is over the threshold can be read off. Brightness falls from the step both ways, also for colour-blind eyes.
_COLD: Final = ((0.0, (22, 28, 92)), (0.25, (38, 84, 178)), (0.5, (140, 214, 236)))
_WARM: Final = ((0.5, (255, 226, 92)), (0.75, (246, 126, 32)), (1.0, (176, 8, 38)))
WHITE: Final = (255, 255, 255)
YELLOW: Final = (255, 221, 0)
_FAINTEST, _STRONGEST = 0.30, 0.72  # how much of the image the colour covers, cold and hot


@dataclass(frozen=True)
class ColourScale:
    """Colours of energies, fixed by the model's threshold alone: a colour is the same energy in every image.

    The scale runs from 0 to twice the threshold; higher energies have the colour of its end.

    Attributes:
        threshold: The model's.
    """

    threshold: float

    @property
    def top(self) -> float:
        """The energy at the hot end."""
        return 2 * self.threshold

    def positions(self, energies: Float[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
        """Return positions on the scale, 0 to 1; above 0.5 exactly where the energy is above the threshold."""
        ratio = energies.astype(np.float64) / self.top if self.top > 0 else np.zeros(energies.shape)
        places = np.clip(ratio, 0, 1).astype(np.float32)
        above = energies > self.threshold
        return np.where(above, np.maximum(places, np.nextafter(np.float32(0.5), 1)), np.minimum(places, 0.5))

    def colours(self, energies: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
        """Return the RGB of each energy."""
        places = self.positions(energies)
        cold, warm = (_interpolate(places, anchors) for anchors in (_COLD, _WARM))
        return np.where((places > 0.5)[..., None], warm, cold).astype(np.uint8)


def _interpolate(
    places: Float32[np.ndarray, "*shape"], anchors: Sequence[tuple[float, tuple[int, int, int]]]
) -> Float[np.ndarray, "*shape 3"]:
    at = [position for position, _ in anchors]
    return np.stack([np.interp(places, at, [rgb[i] for _, rgb in anchors]) for i in range(3)], axis=-1)


def overlay(
    image: UInt8[np.ndarray, "h w 3"], heatmap: Float32[np.ndarray, "h w"], scale: ColourScale
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a heatmap over its image, at the image's own size, with a white line around what is above the threshold."""
    cover = _FAINTEST + (_STRONGEST - _FAINTEST) * scale.positions(heatmap)[:, :, None]
    mixed = np.rint(image * (1 - cover) + scale.colours(heatmap) * cover).astype(np.uint8)
    return outline(mixed, heatmap > scale.threshold, WHITE)


def overlay_of(image: UInt8[np.ndarray, "h w 3"], prediction: Prediction) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the overlay of a scored image, with its regions outlined: white where it is ng, yellow for review."""
    drawn = overlay(image, prediction.heatmap, ColourScale(prediction.threshold))
    if prediction.verdict == "review" and prediction.review_threshold is not None:
        return outline(drawn, prediction.heatmap > prediction.review_threshold, YELLOW)
    return drawn


def outline(
    image: UInt8[np.ndarray, "h w 3"], mask: np.ndarray, colour: tuple[int, int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a line around the mask, 1/256 of the image's shorter side thick."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(min(image.shape[:2]) / 256))
    drawn = np.ascontiguousarray(image).copy()
    cv2.drawContours(drawn, contours, -1, colour, width)
    return drawn


def colour_bar(scale: ColourScale, *, length: int, thickness: int) -> UInt8[np.ndarray, "thickness length 3"]:
    """Draw the scale from 0 to its top as a strip."""
    energies = np.linspace(0, scale.top, length)
    return np.repeat(scale.colours(energies)[None], thickness, axis=0)


def overlay_places(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Choose where each image's overlay goes: in the images' folders below the one they share: names never collide."""
    absolute = {path: Path(os.path.abspath(path)) for path in paths}  # noqa: PTH100  (links stay as they are)
    shared = os.path.commonpath([path.parent for path in absolute.values()]) if paths else ""
    places: dict[Path, Path] = {}
    taken: set[Path] = set()
    for path, full in absolute.items():
        overlay = folder / full.relative_to(shared).with_suffix(".png")
        if overlay in taken:  # part.bmp beside part.png
            overlay = overlay.with_name(f"{full.name}.png")
        while overlay in taken:
            overlay = overlay.with_name(f"{overlay.stem}_.png")
        taken.add(overlay)
        places[path] = overlay
    return places
