"""A synthetic part: the mouth of an amber bottle with a seal ring, seen from above under four lamps.

Everything is drawn from distances in polar coordinates of the part, with edges one pixel soft, so nothing
needs to be drawn larger and shrunk. The lamps stand still while the part turns under them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

# Radii in units of the outer radius.
BORE: Final = 0.52
RIM: Final = (0.52, 0.80)
SEAL: Final = (0.625, 0.700)
COLLAR: Final = (0.80, 0.925)
KNURLS: Final = 40

_LAMPS: Final = (0.6, 2.1, 3.9, 5.3)  # radians, in the frame of the camera


@dataclass(frozen=True)
class View:
    """Where each pixel lies on the part: radius 1 is its outer edge, `angle` turns along, `bearing` does not.

    `centre` (x, y) and `reach`, the outer radius, are in pixels, `turn` in radians.
    """

    radius: Float32[np.ndarray, "h w"]
    angle: Float32[np.ndarray, "h w"]
    bearing: Float32[np.ndarray, "h w"]
    centre: tuple[float, float]
    turn: float
    reach: float

    @property
    def pixel(self) -> float:
        """Width of a pixel in units of the radius."""
        return 1.0 / self.reach

    def band(self, inner: float, outer: float, soft: float = 1.0) -> Float32[np.ndarray, "h w"]:
        """Coverage in [0, 1] of the ring between two radii, edges `soft` pixels wide."""
        width = soft * self.pixel
        rising = np.clip((self.radius - inner) / width + 0.5, 0, 1)
        return rising * np.clip((outer - self.radius) / width + 0.5, 0, 1)


def draw_view(rng: np.random.Generator, size: int) -> View:
    """Place the part: a few pixels off the centre, a little turned, tilted and nearer or farther."""
    shift = rng.uniform(-0.014, 0.014, 2) * size
    reach = 0.415 * size * rng.uniform(0.985, 1.015)
    turn, tilt, tilt_axis = rng.uniform(-0.12, 0.12), rng.uniform(0.0, 0.012), rng.uniform(0, np.pi)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    x = (x - np.float32(size / 2 - 0.5 + shift[0])) / np.float32(reach)
    y = (y - np.float32(size / 2 - 0.5 + shift[1])) / np.float32(reach)
    along = x * np.float32(np.cos(tilt_axis)) + y * np.float32(np.sin(tilt_axis))
    radius = np.sqrt(x * x + y * y + np.float32(tilt) * along * along)
    bearing = np.arctan2(y, x)
    angle = np.mod(bearing - np.float32(turn), np.float32(2 * np.pi))
    middle = (size / 2 - 0.5 + float(shift[0]), size / 2 - 0.5 + float(shift[1]))
    return View(radius, angle, bearing, middle, float(turn), float(reach))


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Float32[np.ndarray, "size size"]:
    """Value noise of unit variance at its nodes, `cells` nodes across."""
    nodes = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    return cv2.resize(nodes, (size, size), interpolation=cv2.INTER_CUBIC)


def over(
    image: Float32[np.ndarray, "h w 3"], coverage: Float32[np.ndarray, "h w"], colour: object
) -> Float32[np.ndarray, "h w 3"]:
    """Paint `colour` (one, or one a pixel) over the image where `coverage` says so."""
    return image + coverage[:, :, None] * (np.asarray(colour, np.float32) - image)


def draw_part(view: View, rng: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    """Draw a flawless part on the light table, values 0 to 255, before the camera adds its own."""
    size = view.radius.shape[0]
    wave = 0.004 * smooth_noise(rng, size, 6)  # glass is never quite round
    lamps = _lamp_light(view, rng)
    image = _table(view, rng)
    image = _collar(image, view, lamps, wave)
    image = _rim(image, view, lamps, wave)
    image = _seal(image, view, lamps)
    return _bore(image, view, lamps, wave)


def expose(image: Float32[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Take the picture: brightness, colour and slope of the light vary a little, then focus and noise."""
    size = image.shape[0]
    gain = rng.uniform(0.96, 1.04) * rng.uniform(0.99, 1.01, 3).astype(np.float32)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    slope = rng.uniform(-0.025, 0.025, 2).astype(np.float32)
    light = 1 + slope[0] * ramp[None, :] + slope[1] * ramp[:, None]
    image = cv2.GaussianBlur(image * light[:, :, None] * gain, (0, 0), rng.uniform(0.45, 0.75))
    grain = cv2.GaussianBlur(rng.standard_normal((size, size), dtype=np.float32), (0, 0), 0.8) * 3.0
    noise = rng.standard_normal(image.shape, dtype=np.float32) * (0.8 + 0.008 * image)
    return np.clip(np.rint(image + grain[:, :, None] + noise), 0, 255).astype(np.uint8)


def _lamp_light(view: View, rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    light = np.full_like(view.radius, 0.22)
    for lamp in _LAMPS:
        off = view.bearing - np.float32(lamp + rng.normal(0, 0.03))
        light += np.float32(rng.uniform(0.85, 1.0)) * np.exp(11.0 * (np.cos(off) - 1))
    return light


def _table(view: View, rng: np.random.Generator) -> Float32[np.ndarray, "h w 3"]:
    size = view.radius.shape[0]
    shade = 214 + 3.0 * smooth_noise(rng, size, 5) - 14 * np.clip(view.radius - 0.9, 0, 1) ** 2
    shade -= 75 * np.exp(-np.clip(view.radius - 1.0, 0, None) / 0.05)  # contact shadow
    image = shade[:, :, None] * np.array([1.0, 1.0, 0.985], np.float32)
    for _ in range(rng.integers(0, 4)):  # dust on the table is no defect
        x, y = rng.uniform(0, size, 2)
        spot = np.zeros((size, size), np.float32)
        cv2.circle(spot, (int(x), int(y)), 1, 1.0, -1, cv2.LINE_AA)
        spot *= view.radius > 1.08
        image = over(image, spot * np.float32(rng.uniform(0.1, 0.3)), (120, 115, 110))
    return image


def _collar(
    image: np.ndarray, view: View, lamps: np.ndarray, wave: np.ndarray
) -> Float32[np.ndarray, "h w 3"]:
    body = np.array([92, 56, 28], np.float32)
    edge = np.clip((view.radius - 0.86) / 0.14, 0, 1)
    image = over(image, view.band(0.0, 1.0, 1.6), body * (1.0 - 0.62 * edge)[:, :, None])
    glow = np.exp(-(((view.radius + wave - 0.955) / 0.011) ** 2)) * (0.15 + 0.75 * lamps)
    image = over(image, np.clip(glow, 0, 0.85), (224, 190, 146))
    turn = np.mod(view.angle / (2 * np.pi) + 0.2, 1.0)
    thread = np.exp(-(((view.radius - 0.985 + 0.022 * turn) / 0.006) ** 2))
    image = over(image, 0.7 * thread, (30, 17, 9))
    image = over(image, view.band(*COLLAR), body * (0.62 + 0.22 * lamps)[:, :, None])
    phase = np.cos(KNURLS * view.angle)
    depth = np.exp(-(((view.radius - 0.862) / 0.030) ** 2))
    relief = depth * phase * (0.6 + 0.5 * lamps)
    image = image + relief[:, :, None] * np.array([30, 22, 14], np.float32)
    seam = np.abs(np.mod(view.angle - 0.35, np.pi) - np.pi / 2) - np.pi / 2 + 0.010
    return over(image, 0.5 * np.clip(seam / 0.010, 0, 1) * view.band(0.80, 1.0), (176, 128, 82))


def _rim(image: np.ndarray, view: View, lamps: np.ndarray, wave: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    across = (view.radius - RIM[0]) / (RIM[1] - RIM[0]) * 2 - 1  # -1 inner edge, 1 outer edge
    slope = np.clip(1 - across**2, 0.02, 1)
    shade = 0.35 + 0.65 * np.sqrt(slope)
    image = over(image, view.band(*RIM, 1.4), np.array([146, 98, 54], np.float32) * shade[:, :, None])
    for radius, width, strength in ((0.748, 0.018, 1.05), (0.574, 0.011, 0.85)):
        shine = np.exp(-(((view.radius + wave - radius) / width) ** 2)) * lamps * strength
        image = over(image, np.clip(shine, 0, 0.96), (252, 244, 230))
    return over(image, 0.8 * np.exp(-(((view.radius - RIM[1]) / 0.009) ** 2)), (34, 20, 11))


def groove(view: View, lamps: np.ndarray | None = None) -> Float32[np.ndarray, "h w 3"]:
    """Colour of the empty groove under the seal ring, for every pixel."""
    across = (view.radius - SEAL[0]) / (SEAL[1] - SEAL[0]) * 2 - 1
    shade = 0.55 + 0.35 * across + (0.0 if lamps is None else 0.2 * lamps)
    return np.array([70, 44, 24], np.float32) * shade[:, :, None]


def _seal(image: np.ndarray, view: View, lamps: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    image = over(image, view.band(SEAL[0] - 0.012, SEAL[1] + 0.012), groove(view))
    across = (view.radius - SEAL[0]) / (SEAL[1] - SEAL[0]) * 2 - 1
    round_ = np.sqrt(np.clip(1 - across**2, 0, 1))
    shade = 0.45 + 0.55 * round_ + 0.35 * lamps * np.exp(-(((across - 0.35) / 0.30) ** 2))
    return over(image, view.band(*SEAL), np.array([96, 122, 128], np.float32) * shade[:, :, None])


def _bore(image: np.ndarray, view: View, lamps: np.ndarray, wave: np.ndarray) -> Float32[np.ndarray, "h w 3"]:
    depth = np.clip(view.radius / BORE, 0, 1)
    image = over(
        image,
        view.band(-1.0, BORE, 1.6),
        np.array([58, 34, 17], np.float32) * (0.25 + 0.75 * depth**3)[:, :, None],
    )
    for radius, width, strength in ((0.46, 0.012, 0.38), (0.33, 0.020, 0.16)):
        ring = np.exp(-(((view.radius - 1.5 * wave - radius) / width) ** 2)) * lamps * strength
        image = over(image, np.clip(ring, 0, 1), (214, 170, 118))
    return over(
        image, 0.5 * np.exp(-((view.radius / 0.17) ** 4)), (96, 62, 34)
    )  # the bottom lets light through
