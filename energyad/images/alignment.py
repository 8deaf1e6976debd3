"""Parts that come shifted and turned: where one lies in a frame, the frame moved onto a reference, and back.

A placement is a turn and a shift; a camera that stands still changes no sizes. It is estimated on grey images of at
most `SIDE` pixels a side, refined by maximising the enhanced correlation coefficient (Evangelidis and Psarakis, 2008;
OpenCV's `findTransformECC`), and believed where the moved frame correlates with the reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias, get_args

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64, Shaped, UInt8

AlignmentMethod: TypeAlias = Literal["contours", "orb", "ecc"]
METHODS: Final[tuple[AlignmentMethod, ...]] = get_args(AlignmentMethod)
"""contours: of the largest thing before a plain background, turned by any angle. orb: by corners (Rublee et al., 2011),
for printed or structured parts. ecc: from the frame as it is, for small shifts and turns.
"""
SIDE: Final = 400
_ELONGATED: Final = 1.3
"""Ratio of a part's axes from which on they give its direction."""
_PREFERENCE: Final = 0.05
"""By how much a turned placement of a round part must correlate better than one that is not turned."""
_MIN_AREA: Final = 0.002
"""Of the largest thing, as a share of the image."""
_MIN_INLIERS: Final = 8
_MAX_SCALE: Final = 1.1
_CRITERIA: Final = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)
_BLUR: Final = 5

Grey: TypeAlias = UInt8[np.ndarray, "h w"]
Matrix: TypeAlias = Float64[np.ndarray, "2 3"]


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a part lies in a frame.

    Attributes:
        matrix: From a pixel (x, y, 1) of the frame to the reference's.
        correlation: Of the frame that is moved onto the reference with the reference, -1 to 1.
        shape: Height and width of the reference.
        frame_shape: Height and width of the frame.
    """

    matrix: Matrix
    correlation: float
    shape: tuple[int, int]
    frame_shape: tuple[int, int]

    def warp(
        self, frame: Shaped[np.ndarray, "h w *channels"]
    ) -> Shaped[np.ndarray, "rows columns *channels"]:
        """Move a frame onto the reference. Beyond the frame's edges its outermost pixels go on."""
        height, width = self.shape
        return cv2.warpAffine(
            np.ascontiguousarray(frame), self.matrix, (width, height), borderMode=cv2.BORDER_REPLICATE
        )

    def unwarp(self, heatmap: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "h w"]:
        """Move a heatmap of the reference's pixels back onto the frame; 0 where the reference has no pixel."""
        height, width = self.frame_shape
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(heatmap, self.matrix, (width, height), flags=flags)

    def to_frame(self, points: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
        """Return the pixels (x, y) of the frame where those of the reference lie; at its edge where they lie beyond."""
        inverse = cv2.invertAffineTransform(self.matrix)
        places = np.array(points, np.float64).reshape(-1, 2) @ inverse[:, :2].T + inverse[:, 2]
        height, width = self.frame_shape
        places = np.rint(places).clip(0, (width - 1, height - 1)).astype(int)
        return [(int(x), int(y)) for x, y in places]


class Aligner:
    """Finds parts and moves frames onto a reference.

    Args:
        reference: A frame of a good part, as all are to lie.
        method: How a part is found, see `METHODS`.
        min_correlation: Below it, there is no part.

    Example:
        >>> aligner = Aligner(read_image("reference.png"))
        >>> placement = aligner.place(read_image("part.png"))
    """

    def __init__(
        self,
        reference: UInt8[np.ndarray, "h w 3"],
        method: AlignmentMethod = "contours",
        *,
        min_correlation: float = 0.5,
    ) -> None:
        self.method, self.min_correlation = method, min_correlation
        self.shape = (reference.shape[0], reference.shape[1])
        self._factor = -(-max(self.shape) // SIDE)
        self._reference = self._small(reference)

    def place(self, frame: UInt8[np.ndarray, "h w 3"]) -> Placement | None:
        """Return where the part lies in a frame; None where there is none.

        Args:
            frame: RGB, of the reference's camera.
        """
        small = self._small(frame)
        if small.std() < 1.0:  # nothing is to be seen, and correlation is not defined
            return None
        best, correlation = self._best(small, list(self._candidates(small)))
        if best is None or correlation < self.min_correlation:
            return None
        return Placement(
            self._at_full_size(best), round(correlation, 4), self.shape, (frame.shape[0], frame.shape[1])
        )

    def align(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "rows columns 3"] | None:
        """Return a frame moved onto the reference; None where there is no part in it."""
        placement = self.place(frame)
        return None if placement is None else placement.warp(frame)

    def _small(self, pixels: UInt8[np.ndarray, "h w 3"]) -> Grey:
        grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
        height, width = (max(1, side // self._factor) for side in grey.shape)  # alike along both axes
        whole = grey[: height * self._factor, : width * self._factor]
        return cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)

    def _candidates(self, frame: Grey) -> Iterator[Matrix]:
        """Placements to begin with."""
        if self.method == "contours":
            yield from _by_contours(frame, self._pose)
        elif self.method == "orb":
            yield from _by_corners(frame, self._corners)
        else:
            (x, y), _ = cv2.phaseCorrelate(*_same_size(frame, self._reference))
            yield np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
            yield np.eye(2, 3)

    @cached_property
    def _pose(self) -> _Pose | None:
        return _pose_of(self._reference)

    @cached_property
    def _corners(self) -> _Corners:
        return _corners_of(self._reference)

    def _best(self, frame: Grey, candidates: Sequence[Matrix]) -> tuple[Matrix | None, float]:
        """The placement that correlates best, refined; of a round part the one that is not turned, if it is as good."""
        best, highest = None, -1.0
        for number, matrix in enumerate(candidates):
            correlation = self._correlation(frame, matrix)
            if correlation > highest + (_PREFERENCE if number and len(candidates) > 2 else 0.0):
                best, highest = matrix, correlation
        if best is None:
            return None, highest
        refined = self._refined(frame, best)
        if refined is not None and (correlation := self._correlation(frame, refined)) > highest:
            return refined, correlation
        return best, highest

    def _correlation(self, frame: Grey, matrix: Matrix) -> float:
        height, width = self._reference.shape
        moved = cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        return float(cv2.matchTemplate(moved, self._reference, cv2.TM_CCOEFF_NORMED)[0, 0])

    def _refined(self, frame: Grey, matrix: Matrix) -> Matrix | None:
        start = cv2.invertAffineTransform(matrix).astype(np.float32)
        try:
            _, found = cv2.findTransformECC(
                self._reference, frame, start, cv2.MOTION_EUCLIDEAN, _CRITERIA, None, _BLUR
            )
        except cv2.error:  # it does not converge
            return None
        return cv2.invertAffineTransform(found.astype(np.float64))

    def _at_full_size(self, matrix: Matrix) -> Matrix:
        """The same placement between pixels of full size, whose centres lie half a pixel in."""
        turn, shift = matrix[:, :2], matrix[:, 2]
        half = np.full(2, 0.5)
        full = turn @ half + (shift - turn @ half + half) * self._factor - half
        return np.hstack([turn, full[:, None]])


@dataclass(frozen=True)
class _Pose:
    """Centre, direction of the long axis in radians, and how elongated the largest thing is."""

    x: float
    y: float
    angle: float
    elongation: float


def _pose_of(grey: Grey) -> _Pose | None:
    """Pose of the largest thing before the background, whose grey value is that of the image's edge."""
    edge = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    difference = cv2.GaussianBlur(cv2.absdiff(grey, np.full_like(grey, int(np.median(edge)))), (5, 5), 0)
    _, mask = cv2.threshold(difference, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return None
    moments = cv2.moments(max(contours, key=cv2.contourArea))
    if moments["m00"] < _MIN_AREA * grey.size:
        return None
    xx, yy, xy = (moments[name] / moments["m00"] for name in ("mu20", "mu02", "mu11"))
    spread = math.hypot(xx - yy, 2 * xy)
    long, short = (xx + yy + spread) / 2, max(1e-6, (xx + yy - spread) / 2)
    return _Pose(
        moments["m10"] / moments["m00"],
        moments["m01"] / moments["m00"],
        0.5 * math.atan2(2 * xy, xx - yy),
        math.sqrt(long / short),
    )


def _by_contours(frame: Grey, reference: _Pose | None) -> Iterator[Matrix]:
    pose = _pose_of(frame)
    if pose is None or reference is None:
        return
    if min(pose.elongation, reference.elongation) > _ELONGATED:
        turn = reference.angle - pose.angle
        angles = [turn, turn + math.pi]
    else:
        angles = [number * math.pi / 6 for number in range(12)]
    for angle in angles:
        turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shift = np.array([reference.x, reference.y]) - turned @ np.array([pose.x, pose.y])
        yield np.hstack([turned, shift[:, None]])


@dataclass(frozen=True, eq=False)
class _Corners:
    """ORB's points and their descriptors; no descriptors where there are no points."""

    points: Float[np.ndarray, "n 2"]
    descriptors: UInt8[np.ndarray, "n 32"] | None


def _corners_of(grey: Grey) -> _Corners:
    keys, descriptors = cv2.ORB.create(nfeatures=1000, fastThreshold=10).detectAndCompute(grey, None)
    return _Corners(np.array([key.pt for key in keys], np.float64).reshape(-1, 2), descriptors)


def _by_corners(frame: Grey, reference: _Corners) -> Iterator[Matrix]:
    corners = _corners_of(frame)
    if corners.descriptors is None or reference.descriptors is None:
        return
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(
        corners.descriptors, reference.descriptors
    )
    if len(matches) < _MIN_INLIERS:
        return
    here = corners.points[[match.queryIdx for match in matches]]
    there = reference.points[[match.trainIdx for match in matches]]
    cv2.setRNGSeed(0)
    similar, inliers = cv2.estimateAffinePartial2D(here, there, ransacReprojThreshold=3.0)
    if similar is None or int(inliers.sum()) < _MIN_INLIERS:
        return
    scale = math.hypot(similar[0, 0], similar[1, 0])
    if not 1 / _MAX_SCALE < scale < _MAX_SCALE:
        return
    is_inlier: Bool[np.ndarray, " n"] = inliers[:, 0].astype(bool)
    turned = similar[:, :2] / scale
    shift = there[is_inlier].mean(axis=0) - turned @ here[is_inlier].mean(axis=0)
    yield np.hstack([turned, shift[:, None]])


def _same_size(first: Grey, second: Grey) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    """Both from their upper left corners on, as floats."""
    height, width = min(first.shape[0], second.shape[0]), min(first.shape[1], second.shape[1])
    return first[:height, :width].astype(np.float32), second[:height, :width].astype(np.float32)


@dataclass(frozen=True)
class MethodTrial:
    """How a method does on sample images.

    Attributes:
        method: The method.
        found: How many parts it finds whose placement is believed.
        samples: Of how many.
        correlation: The median over all samples, 0 for those that it does not find.
        lowest: Of those that it finds.
    """

    method: AlignmentMethod
    found: int
    samples: int
    correlation: float
    lowest: float


def try_methods(
    reference: UInt8[np.ndarray, "h w 3"], samples: Sequence[UInt8[np.ndarray, "h w 3"]]
) -> list[MethodTrial]:
    """Try every method on sample images of good parts, best first.

    Args:
        reference: The frame that parts are moved onto.
        samples: RGB.
    """
    trials = []
    for method in METHODS:
        aligner = Aligner(reference, method, min_correlation=0.0)
        placements = [aligner.place(sample) for sample in samples]
        found = [placement.correlation for placement in placements if placement is not None]
        values = found + [0.0] * (len(samples) - len(found))
        median = float(np.median(values)) if values else 0.0
        trials.append(
            MethodTrial(method, len(found), len(samples), round(median, 3), min(found, default=0.0))
        )
    return sorted(trials, key=lambda trial: (-trial.correlation, -trial.found))
