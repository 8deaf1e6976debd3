"""Images → images with a planted defect and its mask, for tuning on good parts alone.

Test images may choose nothing, so settings are compared on parts of train/good with these. They are
stand-ins: a figure measured on them ranks settings, and is no estimate of performance on real defects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from energyad.data.defect_kinds import EXTENT, KINDS, Site, colourfulness
from energyad.errors import SettingsError
from energyad.images.reading import resize_map

MIN_SIDE: Final = 32
_REACH: Final = (0.012, 0.12)  # radius over the shorter side; drawn evenly in its logarithm
_VISIBLE: Final = 5.0  # grey levels of 255 on average over a neighbourhood; less drowns in a camera's noise
_SEEN: Final = 5  # pixels a side of that neighbourhood
_MIN_MASK: Final = 6
_ATTEMPTS: Final = 10


Window: TypeAlias = tuple[slice, slice]
"""Rows and columns of an image around a defect."""

FINER: Final = 2
"""A defect is drawn on the image as it was taken, up to so many times the network's size: its edges are then as sharp
as those of a real one."""


@dataclass(frozen=True)
class SyntheticDefect:
    """A good image with one defect in it. Outside `mask` the image is as it was, to the bit."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    kind: str


def drawing_size(image_shape: tuple[int, ...], network: tuple[int, int]) -> tuple[int, int]:
    """Height and width at which defects are drawn on an image: its own, from the network's to FINER times that."""
    height, width = (
        min(max(side, least), FINER * least) for side, least in zip(image_shape, network, strict=True)
    )
    return height, width


def draw_defect(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    rng: np.random.Generator,
    source: UInt8[np.ndarray, "h2 w2 3"] | None = None,
    kind: str | None = None,
    within: Bool[np.ndarray, "h w"] | None = None,
) -> SyntheticDefect:
    """Plant one defect of a kind of `KINDS` (drawn where None), preferably on the part, not beside it.

    `source` is another image to take texture from; without it the image itself serves. `within`: where the middle
    of the defect may lie. Radii run from 1.2 % to 12 % of the shorter side, small ones as often as large ones. The
    same generator state gives the same defect. A place where the defect would not be seen is given up for another;
    where none shows it (moved or smeared, a flat image looks the same), the kind becomes "spot". On an even texture
    such as leather a "warp" is a defect in name only.
    """
    if min(image.shape[:2]) < MIN_SIDE:
        raise SettingsError(
            f"an image of {image.shape[1]} x {image.shape[0]} pixels is too small for a defect"
        )
    if kind is not None and kind not in KINDS:
        raise SettingsError(f"{kind!r} is no kind of planted defect; there are {', '.join(KINDS)}")
    chosen = kind if kind is not None else str(rng.choice(list(KINDS)))
    places, colour = saliency(image), colourfulness(image)
    if within is not None:
        places = places * within
    texture = _ForeignTexture.drawn(image if source is None else source, image.shape[:2], rng)
    for attempt in range(2 * _ATTEMPTS):
        chosen = chosen if attempt < _ATTEMPTS else "spot"
        site, window = _draw_site(places, colour, rng)
        good = image[window].astype(np.float32)
        drawn, coverage = KINDS[chosen](good, texture.of(window), site, rng)
        planted = good + coverage[:, :, None] * (drawn - good)
        visible = cv2.blur(_most(np.abs(planted - good)), (_SEEN, _SEEN)) > _VISIBLE
        inside = visible & (coverage > 0.2)
        if inside.sum() >= _MIN_MASK:
            break
    changed, mask = image.copy(), np.zeros(image.shape[:2], dtype=bool)
    mask[window] = inside
    changed[window][inside] = np.clip(np.rint(planted[inside]), 0, 255).astype(np.uint8)
    return SyntheticDefect(changed, mask, chosen)


def saliency(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Where the part is likely to be: smoothed gradient energy, as probabilities that sum to 1.

    A tenth is spread evenly, since plain surfaces have defects too; on a texture that fills the image all
    places come out about alike.
    """
    height, width = image.shape[:2]
    scale = min(1.0, 128 / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    energy = cv2.GaussianBlur(np.hypot(across, down), (0, 0), 1.5)
    energy = np.clip(energy - 2 * np.quantile(energy, 0.1), 0, None)  # the background has its grain as well
    energy = np.minimum(energy, np.quantile(energy, 0.9))  # an outline is no better a place than the part
    total = float(energy.sum())
    even = np.full_like(energy, 1 / energy.size)
    weights = resize_map(0.9 * energy / total + 0.1 * even if total > 0 else even, height, width)
    return weights / weights.sum(dtype=np.float64).astype(np.float32)


def _most(channels: Float32[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    # Several times as fast as a maximum over the last axis
    return np.maximum(np.maximum(channels[:, :, 0], channels[:, :, 1]), channels[:, :, 2])


def _draw_site(
    places: Float32[np.ndarray, "h w"], colour: np.float32, rng: np.random.Generator
) -> tuple[Site, Window]:
    """Draw a place, and a defect's reach there; return the site and the part of the image that it is of."""
    height, width = places.shape
    of_rows = np.cumsum(places.sum(axis=1, dtype=np.float64))
    target = rng.uniform(0, of_rows[-1])
    row = min(int(np.searchsorted(of_rows, target)), height - 1)
    in_row = np.cumsum(places[row], dtype=np.float64)
    column = min(int(np.searchsorted(in_row, target - of_rows[row] + in_row[-1])), width - 1)
    reach = min(height, width) * float(np.exp(rng.uniform(*np.log(_REACH))))
    reach, turn = max(reach, 1.5), rng.uniform(0, 2 * np.pi)
    extent = int(np.ceil(EXTENT * reach)) + _SEEN
    window = (_around(row, extent, height), _around(column, extent, width))
    x = (np.arange(window[1].start, window[1].stop, dtype=np.float32) - column) / np.float32(reach)
    y = ((np.arange(window[0].start, window[0].stop, dtype=np.float32) - row) / np.float32(reach))[:, None]
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return Site(c * x + s * y, c * y - s * x, reach, min(height, width), colour), window


def _around(place: int, extent: int, side: int) -> slice:
    return slice(max(0, place - extent), min(side, place + extent + 1))


@dataclass(frozen=True)
class _ForeignTexture:
    """An image at the wrong place: flipped at random, rolled by a quarter to three quarters of its size.

    Attributes:
        image: As it was taken, of the size that it is used at.
        flips: Down and across: 1, or -1 where it is flipped.
        shift: Pixels down and across that it is then rolled by.
    """

    image: UInt8[np.ndarray, "h w 3"]
    flips: tuple[int, int]
    shift: tuple[int, int]

    @classmethod
    def drawn(
        cls, source: UInt8[np.ndarray, "h2 w2 3"], shape: tuple[int, ...], rng: np.random.Generator
    ) -> Self:
        """Draw flips and shifts."""
        fitted = cv2.resize(source, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
        fitted = fitted.astype(np.uint8, copy=False)
        down, across = (1 - 2 * rng.integers(0, 2, 2)).tolist()
        rolled = [int(side * rng.uniform(0.25, 0.75)) for side in shape]
        return cls(fitted, (down, across), (rolled[0], rolled[1]))

    def of(self, window: Window) -> Float32[np.ndarray, "h w 3"]:
        """Return a part of it."""
        rows, columns = (
            (np.arange(part.start, part.stop) - shift) % side
            for part, shift, side in zip(window, self.shift, self.image.shape, strict=False)
        )
        flipped = self.image[:: self.flips[0], :: self.flips[1]]
        return flipped[np.ix_(rows, columns)].astype(np.float32)
