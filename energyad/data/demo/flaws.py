"""Six kinds of synthetic flaw on the demo part, each with its exact mask, from obvious to hard to see.

`severity` runs from 0 (small and faint) to 1 (large and plain); place and shape come from the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from energyad.data.demo.part import BORE, COLLAR, RIM, SEAL, View, groove, over, smooth_noise

Drawing = Float32[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]
Flaw = Callable[[Drawing, View, np.random.Generator, float], tuple[Drawing, Mask]]


def chip(image: Drawing, view: View, rng: np.random.Generator, severity: float) -> tuple[Drawing, Mask]:
    """Glass broken off an edge: a shell-shaped fracture with ripples and a dark outline."""
    edge = float(rng.choice([1.0, 1.0, RIM[1], BORE]))
    reach = 0.045 + 0.13 * severity
    distance = _blob(view, rng, edge, rng.uniform(0, 2 * np.pi), reach, reach * rng.uniform(0.45, 0.7), 0.5)
    inside = view.band(BORE, 1.0) * np.clip((1 - distance) * reach / view.pixel + 0.5, 0, 1)
    ripple = np.sin(distance * rng.uniform(5, 9) + rng.uniform(0, 6)) + smooth_noise(rng, image.shape[0], 40)
    fresh = np.array([138, 104, 72], np.float32) + ripple[:, :, None] * np.array([26, 24, 21], np.float32)
    outline = np.clip(1 - np.abs(distance - 0.92) / 0.12, 0, 1)
    fresh = over(fresh, 0.7 * outline, (36, 24, 15))
    if edge == 1.0:  # where the outer edge is gone the table shines through
        fresh = over(fresh, np.clip((0.55 - distance) / 0.1, 0, 1), (186, 184, 178))
    return over(image, inside * (0.75 + 0.25 * severity), fresh), inside > 0.5


def crack(image: Drawing, view: View, rng: np.random.Generator, severity: float) -> tuple[Drawing, Mask]:
    """A jagged line across the rim, dark with a glint on one side, branched when it is severe."""
    start, length = rng.uniform(0.56, 0.72), 0.10 + 0.32 * severity
    bearing = rng.uniform(0, 2 * np.pi)
    heading = bearing + rng.normal(0, 0.6)  # cracks run outwards, more or less
    paths = [_walk(view, rng, start, bearing, heading, length, 0.22)]
    if severity > 0.5:
        branch = heading + rng.choice([-0.8, 0.8])
        paths.append(_walk(view, rng, *_polar(view, paths[0][7]), branch, length / 2, 0.22))
    body = view.band(BORE, 1.0)
    line = _stroke(paths, image.shape[0], 0.9 + 0.8 * severity) * body
    glint = np.roll(line, (1, 1), axis=(0, 1)) * body * (1 - line)
    image = over(over(image, 0.55 * glint, (236, 214, 184)), (0.7 + 0.25 * severity) * line, (16, 10, 7))
    return image, (line > 0.3) | (glint > 0.3)


def contamination(
    image: Drawing, view: View, rng: np.random.Generator, severity: float
) -> tuple[Drawing, Mask]:
    """A clot of dirt or lint: dark where the part is bright, pale where it is dark."""
    reach = 0.022 + 0.075 * severity
    distance = _blob(view, rng, rng.uniform(0.18, 0.94), rng.uniform(0, 2 * np.pi), reach, reach, 0.55)
    cover = np.clip((1 - distance) * reach / (1.5 * view.pixel) + 0.5, 0, 1)
    under = float((image.mean(axis=2) * cover).sum() / max(float(cover.sum()), 1e-6))
    dirt = (26, 23, 21) if under > 75 else (150, 144, 132)
    grain = 9 * smooth_noise(rng, image.shape[0], image.shape[0] // 4)
    return over(image, 0.93 * cover, np.asarray(dirt, np.float32) + grain[:, :, None]), cover > 0.5


def scratch(image: Drawing, view: View, rng: np.random.Generator, severity: float) -> tuple[Drawing, Mask]:
    """One to three nearly straight, nearly parallel bright lines."""
    radius, bearing, heading = rng.uniform(0.5, 0.9), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)
    paths = []
    for _ in range(1 + int(2.99 * severity * rng.uniform(0.3, 1))):
        length = (0.14 + 0.36 * severity) * rng.uniform(0.7, 1.0)
        start = (radius + rng.normal(0, 0.03), bearing + rng.normal(0, 0.06))
        paths.append(_walk(view, rng, *start, heading + rng.normal(0, 0.08), length, 0.03))
    line = _stroke(paths, image.shape[0], 0.8 + 0.7 * severity) * view.band(-1.0, 1.0)
    return over(image, (0.35 + 0.45 * severity) * line, (226, 206, 180)), line > 0.3


def missing_segment(
    image: Drawing, view: View, rng: np.random.Generator, severity: float
) -> tuple[Drawing, Mask]:
    """A piece of the seal ring is gone, and its groove lies open."""
    half, middle = 0.05 + 0.45 * severity, rng.uniform(0, 2 * np.pi)
    off = np.abs(np.mod(view.angle - middle + np.pi, 2 * np.pi) - np.pi)
    ragged = 0.012 * smooth_noise(rng, image.shape[0], 40)
    open_ = np.clip((half - off + ragged) * SEAL[0] / (1.2 * view.pixel) + 0.5, 0, 1) * view.band(*SEAL)
    return over(image, open_, groove(view)), open_ > 0.5


def stain(image: Drawing, view: View, rng: np.random.Generator, severity: float) -> tuple[Drawing, Mask]:
    """A film with a soft edge that lightens or tints what lies under it; the mask ends at half its depth."""
    reach = rng.uniform(0.09, 0.15) + 0.08 * severity
    radius = rng.uniform(RIM[0], COLLAR[1])
    distance = _blob(view, rng, radius, rng.uniform(0, 2 * np.pi), reach * rng.uniform(1, 1.6), reach, 0.8)
    cover = np.clip((1 - distance) / 0.3 + 0.5, 0, 1) * view.band(-1.0, 1.0)
    film = ((206, 200, 186), (150, 70, 24), (70, 96, 120), (120, 132, 70))[rng.integers(4)]
    return over(image, (0.20 + 0.35 * severity) * cover, film), cover > 0.5


FLAWS: Final[dict[str, Flaw]] = {
    "chip": chip,
    "contamination": contamination,
    "crack": crack,
    "missing_segment": missing_segment,
    "scratch": scratch,
    "stain": stain,
}


def _blob(
    view: View,
    rng: np.random.Generator,
    radius: float,
    bearing: float,
    along: float,
    across: float,
    rough: float,
) -> Float32[np.ndarray, "h w"]:
    """Distance from a place on the part, 1 at the edge of a rough ellipse laid along the ring."""
    arc = radius * (np.mod(view.bearing - bearing + np.pi, 2 * np.pi) - np.pi)
    ellipse = np.sqrt((arc / along) ** 2 + ((view.radius - radius) / across) ** 2)
    size = view.radius.shape[0]
    cells = max(6, round(1.2 / max(along, across)))
    return np.asarray(ellipse + rough * 0.5 * smooth_noise(rng, size, cells), np.float32)


def _walk(
    view: View,
    rng: np.random.Generator,
    radius: float,
    bearing: float,
    heading: float,
    length: float,
    bend: float,
) -> Float32[np.ndarray, "n 2"]:
    """A random walk of straight pieces in pixels (x, y), centred on a place on the part."""
    pieces = 14
    headings = heading + np.cumsum(rng.normal(0, bend, pieces))
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * (length * view.reach / pieces)
    walked = np.cumsum(steps, axis=0)
    start = view.centre + radius * view.reach * np.array([np.cos(bearing), np.sin(bearing)])
    return (start + walked - walked.mean(axis=0)).astype(np.float32)


def _polar(view: View, point: np.ndarray) -> tuple[float, float]:
    x, y = (point - np.asarray(view.centre)) / view.reach
    return float(np.hypot(x, y)), float(np.arctan2(y, x))


def _stroke(paths: list[Float32[np.ndarray, "n 2"]], size: int, width: float) -> Float32[np.ndarray, "h w"]:
    """Coverage of polylines `width` pixels thick: drawn four times as large, then averaged."""
    scale = 4
    canvas = np.zeros((size * scale, size * scale), np.uint8)
    for path in paths:
        corners = np.rint((path + 0.5) * scale * 16).astype(np.int32)  # four binary places
        cv2.polylines(canvas, [corners], False, 255, max(1, round(width * scale)), cv2.LINE_8, 4)
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
