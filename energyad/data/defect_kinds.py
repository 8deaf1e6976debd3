"""The kinds of planted defects: each draws the picture inside the defect, and how far each pixel belongs to it.

Sources: CutPaste, a patch or a scar from elsewhere (Li et al., CVPR 2021); noise-shaped textures (DRAEM, Zavrtanik et
al., ICCV 2021); Poisson blending (NSA, Schlüter et al., ECCV 2022). A displacement, a twist, a missing piece, a smear,
a shade, scratches and spots are plain image operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

_MIN_BLENDED: Final = 30  # pixels


@dataclass(frozen=True)
class Site:
    """Pixels around the place of a defect: offsets from it, turned at random, in units of `reach` pixels.

    Attributes:
        u, v: Offsets of each pixel.
        reach: Radius of the defect, about.
        image_side: Shorter side of the whole image, pixels.
        colourfulness: Of the whole image, from 0 (grey: a colour would give the defect away) to 1.
    """

    u: Float32[np.ndarray, "h w"]
    v: Float32[np.ndarray, "h w"]
    reach: float
    image_side: int
    colourfulness: np.float32

    def inside(self, distance: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
        """Coverage of `distance` < 1, its edge about a pixel soft."""
        return np.clip((1 - distance) * np.float32(self.reach) + 0.5, 0, 1)


EXTENT: Final = 4.0
"""Nothing of a defect lies farther from its place, nor does what it is made of, in units of its reach."""

# The picture inside the defect, and how far each pixel belongs to it.
Drawing = tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]
Kind = Callable[[np.ndarray, np.ndarray, Site, np.random.Generator], Drawing]
"""Takes the image around the defect, and the texture of another place there."""


def _patch(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A box of another place, of 1 to 3 times as long as wide."""
    aspect = np.float32(np.sqrt(rng.uniform(1.0, 3.0)))
    box = np.maximum(np.abs(site.u) / aspect, np.abs(site.v) * aspect)
    return _recolour(texture, site, rng), site.inside(box)


def _scar(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A thin strip of another place."""
    long, thin = np.float32(rng.uniform(1.2, 2.2)), np.float32(rng.uniform(0.12, 0.35))
    return _recolour(texture, site, rng), site.inside(
        np.maximum(np.abs(site.u) / long, np.abs(site.v) / thin)
    )


def _stain(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """An island of noise, filled with foreign texture or one colour, more or less transparent."""
    island = np.hypot(site.u, site.v) + 0.35 * _noise(good.shape[:2], 1.2 * site.reach, rng)
    colour = rng.uniform(0, 255, 3).astype(np.float32)
    colour = colour.mean() + site.colourfulness * (colour - colour.mean())
    fill = (
        _recolour(texture, site, rng)
        if rng.random() < 0.6
        else 0.5 * (np.broadcast_to(colour, good.shape) + good)
    )
    return fill, site.inside(island) * np.float32(rng.uniform(0.35, 1.0))


def _scratch(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A thin line, a little bent, darker or brighter than what it crosses."""
    bend = rng.uniform(-0.35, 0.35) * site.u**2 + 0.04 * np.sin(site.u * rng.uniform(2, 6))
    half = np.float32(rng.uniform(0.5, 1.0) + 0.0012 * site.image_side)  # pixels
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


def _blend(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A box of another place without an edge: Poisson blending keeps its structure and takes the tone around it."""
    aspect = np.float32(np.sqrt(rng.uniform(1.0, 3.0)))
    box = np.maximum(np.abs(site.u) / aspect, np.abs(site.v) * aspect)
    inside = (box < 1).astype(np.uint8)
    inside[[0, -1]], inside[:, [0, -1]] = 0, 0  # the blend takes its tone from the pixels around
    if inside.sum() < _MIN_BLENDED:
        return good, np.zeros_like(box)
    left, top, width, height = cv2.boundingRect(inside)
    centre = (left + width // 2, top + height // 2)
    fill, onto = (np.clip(picture, 0, 255).astype(np.uint8) for picture in (texture, good))
    blended = cv2.seamlessClone(fill, onto, inside * 255, centre, cv2.NORMAL_CLONE)
    return blended.astype(np.float32), site.inside(box)


def _shift(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A piece displaced: an island shows what lies half to one and a half radii away."""
    turn, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.5) * site.reach
    move = np.array([[1, 0, length * np.cos(turn)], [0, 1, length * np.sin(turn)]], np.float32)
    moved = cv2.warpAffine(good, move, good.shape[1::-1], borderMode=cv2.BORDER_REFLECT)
    island = np.hypot(site.u, site.v) + 0.2 * _noise(good.shape[:2], 1.2 * site.reach, rng)
    return moved, site.inside(island)


def _swirl(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """The part twisted: turned in the middle, less outwards, nothing at the rim."""
    squares = site.u**2 + site.v**2
    fade = np.clip(1 - squares / 2, 0, 1) ** 2
    angle = np.float32(rng.choice([-1, 1]) * rng.uniform(0.3, 1.2)) * fade
    row, column = divmod(int(squares.argmin()), good.shape[1])
    rows, columns = np.mgrid[0 : good.shape[0], 0 : good.shape[1]].astype(np.float32)
    x, y, c, s = columns - column, rows - row, np.cos(angle), np.sin(angle)
    twisted = cv2.remap(
        good, column + c * x - s * y, row + s * x + c * y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return twisted, np.clip(fade * np.float32(site.reach), 0, 1)


def _missing(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A piece gone: an island filled from its surroundings, with the grain of another place."""
    height, width = good.shape[:2]
    island = np.hypot(site.u, site.v) + 0.25 * _noise((height, width), 1.2 * site.reach, rng)
    scale = min(1.0, 256 / max(height, width))  # filling takes long in large images
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    hole = cv2.resize((island < 1).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(good, size, interpolation=cv2.INTER_AREA).clip(0, 255).astype(np.uint8)
    filled = cv2.inpaint(small, cv2.dilate(hole, np.ones((3, 3), np.uint8)), 3, cv2.INPAINT_TELEA)
    surroundings = cv2.resize(filled.astype(np.float32), (width, height))
    grain = np.roll(good - cv2.GaussianBlur(good, (0, 0), 2), rng.integers(20, 60, 2).tolist(), axis=(0, 1))
    return surroundings + 0.7 * grain, site.inside(island)


def _shade(good: np.ndarray, texture: np.ndarray, site: Site, rng: np.random.Generator) -> Drawing:
    """A broad, soft darkening or brightening."""
    fade = np.exp(-(site.u**2 + site.v**2) / 2)
    gain = np.float32(rng.choice([-1, 1]) * rng.uniform(0.08, 0.3))
    return good * (1 + gain * fade[:, :, None]), np.clip(3 * fade - 0.6, 0, 1)


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
    "blend": _blend,
    "shift": _shift,
    "swirl": _swirl,
    "missing": _missing,
    "shade": _shade,
}


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


def _recolour(texture: np.ndarray, site: Site, rng: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    """Brightness and, where the part has colours at all, tint changed a little."""
    gain, tint = np.float32(rng.uniform(0.75, 1.25)), rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    return np.clip(texture * (gain * (1 + site.colourfulness * tint)), 0, 255)


def colourfulness(image: UInt8[np.ndarray, "h w 3"]) -> np.float32:
    """From 0 (a grey image, in which a colour would give the defect away) to 1."""
    red, blue = (image[::8, ::8, channel].astype(np.float32) for channel in (0, 2))
    return np.float32(min(1.0, float(np.abs(red - blue).mean()) / 8))
