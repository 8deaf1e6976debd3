"""Images → images with a planted defect and its mask, for tuning on good parts alone.

Test images may choose nothing, so settings are compared on parts of train/good with these. They are
stand-ins: a figure measured on them ranks settings, and is no estimate of performance on real defects.

Sources of the kinds: CutPaste, a patch or a scar from elsewhere (Li et al., CVPR 2021); noise-shaped textures
(DRAEM, Zavrtanik et al., ICCV 2021); a displacement, a smear, scratches and spots are plain image operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from energyad.errors import SettingsError
from energyad.images import resize_map

SMALLEST_SIDE: Final = 32
_REACH: Final = (0.012, 0.12)  # radius over the shorter side; drawn evenly in its logarithm
_VISIBLE: Final = 5.0  # grey levels of 255 on average over a neighbourhood; less drowns in a camera's noise
_SMALLEST_MASK: Final = 6
_ATTEMPTS: Final = 10


@dataclass(frozen=True)
class PlantedDefect:
    """A good image with one defect in it. Outside `mask` the image is as it was, to the bit."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    kind: str


@dataclass(frozen=True)
class Site:
    """Pixels around the place of a defect: offsets from it, turned at random, in units of `reach` pixels."""

    u: Float32[np.ndarray, "h w"]
    v: Float32[np.ndarray, "h w"]
    reach: float

    def inside(self, distance: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """Coverage of `distance` < 1, its edge about a pixel soft."""
        return np.clip((1 - distance) * np.float32(self.reach) + 0.5, 0, 1)


def plant_defect(
    image: UInt8[np.ndarray, "h w 3"],
    *,
    rng: np.random.Generator,
    source: UInt8[np.ndarray, "h2 w2 3"] | None = None,
    kind: str | None = None,
) -> PlantedDefect:
    """Plant one defect of a kind of `KINDS` (drawn where None), preferably on the part, not beside it.

    `source` is another image to take texture from; without it the image itself serves. Radii run from 1.2 %
    to 12 % of the shorter side, small ones as often as large ones. The same generator state gives the same
    defect. A place where the defect would not be seen is given up for another; where none shows it (moved or
    smeared, a flat image looks the same), the kind becomes "spot". On an even texture such as leather a
    "warp" is a defect in name only.
    """
    if min(image.shape[:2]) < SMALLEST_SIDE:
        raise SettingsError(
            f"an image of {image.shape[1]} x {image.shape[0]} pixels is too small for a defect"
        )
    if kind is not None and kind not in KINDS:
        raise SettingsError(f"{kind!r} is no kind of planted defect; there are {', '.join(KINDS)}")
    chosen = kind if kind is not None else str(rng.choice(list(KINDS)))
    good, places = image.astype(np.float32), saliency(image)
    texture = _foreign_texture(image if source is None else source, image.shape[:2], rng)
    for attempt in range(2 * _ATTEMPTS):
        chosen = chosen if attempt < _ATTEMPTS else "spot"
        drawn, coverage = KINDS[chosen](good, texture, _draw_site(places, rng), rng)
        planted = good + coverage[:, :, None] * (drawn - good)
        change = cv2.blur(np.abs(planted - good).max(axis=2), (5, 5))
        mask = (change > _VISIBLE) & (coverage > 0.2)
        if mask.sum() >= _SMALLEST_MASK:
            break
    changed = np.clip(np.rint(planted), 0, 255).astype(np.uint8)
    return PlantedDefect(np.where(mask[:, :, None], changed, image), mask, chosen)


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


def _draw_site(places: Float32[np.ndarray, "h w"], rng: np.random.Generator) -> Site:
    height, width = places.shape
    cumulative = np.cumsum(places.ravel(), dtype=np.float64)
    index = int(np.searchsorted(cumulative, rng.uniform(0, cumulative[-1])))
    row, column = divmod(min(index, places.size - 1), width)
    reach = min(height, width) * float(np.exp(rng.uniform(*np.log(_REACH))))
    reach, turn = max(reach, 1.5), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (x - column) / np.float32(reach), (y - row) / np.float32(reach)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return Site(c * x + s * y, c * y - s * x, reach)


def _foreign_texture(
    source: UInt8[np.ndarray, "h2 w2 3"], shape: tuple[int, ...], rng: np.random.Generator
) -> Float32[np.ndarray, "h w 3"]:
    """`source` at the wrong place: flipped at random, rolled by a quarter to three quarters of its size."""
    fitted = cv2.resize(source, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    flips = (1 - 2 * rng.integers(0, 2, 2)).tolist()
    shift = [int(side * rng.uniform(0.25, 0.75)) for side in shape]
    return np.roll(fitted[:: flips[0], :: flips[1]], shift, axis=(0, 1)).astype(np.float32)


def _noise(
    shape: tuple[int, ...], cell: float, rng: np.random.Generator, *, octaves: int = 3
) -> Float32[np.ndarray, "h w"]:
    """Value noise of `octaves` scales, the coarsest with nodes `cell` pixels apart; unit deviation or so."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        nodes = rng.standard_normal((int(shape[0] / step) + 2, int(shape[1] / step) + 2), dtype=np.float32)
        total += cv2.resize(nodes, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC) / 2**octave
    return total


def _recolour(
    texture: np.ndarray, good: np.ndarray, rng: np.random.Generator
) -> Float32[np.ndarray, "h w 3"]:
    """Brightness and, where the part has colours at all, tint changed a little."""
    gain, tint = np.float32(rng.uniform(0.75, 1.25)), rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    return np.clip(texture * gain * (1 + _colourfulness(good) * tint), 0, 255)


def _colourfulness(good: np.ndarray) -> np.float32:
    """From 0 (a grey image, in which a colour would give the defect away) to 1."""
    return np.float32(min(1.0, float(np.abs(good[::8, ::8, 0] - good[::8, ::8, 2]).mean()) / 8))


# What a kind returns: the picture inside the defect, and how far each pixel belongs to it.
Drawing = tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]
Kind = Callable[[np.ndarray, np.ndarray, Site, np.random.Generator], Drawing]


def _patch(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A box of another place, of 1 to 3 times as long as wide."""
    aspect = np.float32(np.sqrt(rng.uniform(1.0, 3.0)))
    box = np.maximum(np.abs(site.u) / aspect, np.abs(site.v) * aspect)
    return _recolour(texture, good, rng), site.inside(box)


def _scar(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A thin strip of another place."""
    long, thin = np.float32(rng.uniform(1.2, 2.2)), np.float32(rng.uniform(0.12, 0.35))
    return _recolour(texture, good, rng), site.inside(
        np.maximum(np.abs(site.u) / long, np.abs(site.v) / thin)
    )


def _stain(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """An island of noise, filled with foreign texture or one colour, more or less transparent."""
    island = np.hypot(site.u, site.v) + 0.35 * _noise(good.shape[:2], 1.2 * site.reach, rng)
    colour = rng.uniform(0, 255, 3).astype(np.float32)
    colour = colour.mean() + _colourfulness(good) * (colour - colour.mean())
    fill = (
        _recolour(texture, good, rng)
        if rng.random() < 0.6
        else 0.5 * (np.broadcast_to(colour, good.shape) + good)
    )
    return fill, site.inside(island) * np.float32(rng.uniform(0.35, 1.0))


def _scratch(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A thin line, a little bent, darker or brighter than what it crosses."""
    bend = rng.uniform(-0.35, 0.35) * site.u**2 + 0.04 * np.sin(site.u * rng.uniform(2, 6))
    half = np.float32(rng.uniform(0.5, 1.0) + 0.0012 * min(good.shape[:2]))  # pixels
    line = np.clip(half - np.abs(site.v - bend) * np.float32(site.reach) + 0.5, 0, 1)
    ends = site.inside(np.abs(site.u) / np.float32(rng.uniform(1.0, 2.5)))
    return good + _contrast(good, line * ends, rng), line * ends


def _warp(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """The part bent or pushed in: its own pixels displaced, most in the middle, nothing at the rim."""
    fade = np.clip(1 - 0.25 * (site.u**2 + site.v**2), 0, 1) ** 2
    reach, turn = np.float32(site.reach), rng.uniform(0, 2 * np.pi)
    push = np.float32(max(rng.uniform(0.35, 0.8) * site.reach, 2.0)) * fade
    rows, columns = np.mgrid[0 : good.shape[0], 0 : good.shape[1]].astype(np.float32)
    x, y = columns + push * np.float32(np.cos(turn)), rows + push * np.float32(np.sin(turn))
    moved = cv2.remap(good, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return moved, np.clip(fade * reach, 0, 1)


def _smear(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A place worn smooth: structure blurred away."""
    blurred = cv2.GaussianBlur(good, (0, 0), max(2.0, rng.uniform(0.25, 0.6) * site.reach))
    island = np.hypot(site.u, site.v) + 0.2 * _noise(good.shape[:2], site.reach, rng)
    return blurred, np.clip(2 * (1 - island), 0, 1)


def _spot(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A small dark or bright spot: a pore, a crumb, a splash."""
    small = np.float32(max(0.45, 1.6 / site.reach))
    spot = site.inside(np.hypot(site.u / small, site.v / (small * np.float32(rng.uniform(0.6, 1.0)))))
    return good + _contrast(good, spot, rng), spot


def _contrast(good: np.ndarray, coverage: np.ndarray, rng: np.random.Generator) -> float:
    """Grey levels to add, 25 to 110, towards the side of the scale that has room for them."""
    under = float((good.mean(axis=2) * coverage).sum()) / max(float(coverage.sum()), 1e-6)
    strength = float(rng.uniform(25, 110))
    return strength if rng.random() < 1 - under / 255 else -strength


KINDS: Final[dict[str, Kind]] = {
    "patch": _patch,
    "scar": _scar,
    "stain": _stain,
    "scratch": _scratch,
    "warp": _warp,
    "smear": _smear,
    "spot": _spot,
}
