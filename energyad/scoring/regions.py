"""Where on the part: connected regions of the heatmap above a threshold, in the original image's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32

from energyad.scoring.calibration import Calibration

MAX_REGIONS = 100
"""Regions reported of one image, those of the highest peaks; an image that is all wrong has thousands."""
UNKNOWN = "unknown"
"""The kind of a region that is like none of those that people named."""
POLYGON_TOLERANCE = 1 / 1000
"""How far a polygon may stray from its region, as a share of the image's longer side."""


@dataclass(frozen=True)
class Region:
    """A connected region (8 neighbours) of pixels above the threshold that its image exceeds.

    Attributes:
        polygon: Corners (x, y) of its outer border, pixel indices. Holes are not part of it, and not counted in
            `area`.
        box: x, y, width, height, pixels.
        area: Pixels.
        area_percent: Of the image.
        peak: Highest value of the heatmap in it.
        peak_at: Where that is, (x, y).
        p_value: That of an image whose score is this peak.
        kind: Of defect that it is likeliest, "unknown" where it is like none that was named; None where the model knows
            no kinds.
        kind_probability: Of the likeliest kind, likewise.
    """

    polygon: tuple[tuple[int, int], ...]
    box: tuple[int, int, int, int]
    area: int
    area_percent: float
    peak: float
    peak_at: tuple[int, int]
    p_value: float
    kind: str | None = None
    kind_probability: float | None = None


def find_regions(heatmap: Float32[np.ndarray, "h w"], calibration: Calibration) -> tuple[Region, ...]:
    """Find the regions of an image, highest peak first.

    They lie above `threshold` where the image is ng, and above the review threshold where it is for review; an image
    that is ok has none. The image's score is its heatmap's maximum, so an image that is not ok has at least one
    region, and the first one's peak and p-value are the image's own.

    Args:
        heatmap: Energies at the image's own size.
        calibration: The model's thresholds.
    """
    verdict = calibration.verdict(float(heatmap.max()))
    if verdict == "ok":
        return ()
    above = heatmap > (calibration.threshold if verdict == "ng" else calibration.lowest_threshold)
    labels, stats = _components(above)
    peaks = []
    for label in range(1, len(stats)):
        x, y, width, height, _ = stats[label].tolist()
        window = (slice(y, y + height), slice(x, x + width))
        index = int(np.where(labels[window] == label, heatmap[window], -np.inf).argmax())
        at = (x + index % width, y + index // width)
        peaks.append((float(heatmap[at[1], at[0]]), at, label, window))
    peaks.sort(key=lambda peak: -peak[0])
    return tuple(
        Region(
            polygon=_polygon(labels[window] == label, window[1].start, window[0].start, max(heatmap.shape)),
            box=(*stats[label, :4].tolist(),),
            area=int(stats[label, cv2.CC_STAT_AREA]),
            area_percent=100 * float(stats[label, cv2.CC_STAT_AREA]) / heatmap.size,
            peak=peak,
            peak_at=at,
            p_value=calibration.p_value(peak),
        )
        for peak, at, label, window in peaks[:MAX_REGIONS]
    )


def _components(above: Bool[np.ndarray, "h w"]) -> tuple[Int32[np.ndarray, "h w"], Int32[np.ndarray, "n 5"]]:
    """OpenCV's labels and statistics of what is True, looked for where there is any: mostly a corner of the image."""
    y, x = (np.flatnonzero(above.any(axis=axis)) for axis in (1, 0))
    corner = (slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1))
    _, components, stats, _ = cv2.connectedComponentsWithStats(above[corner].astype(np.uint8), connectivity=8)
    stats[:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]] += np.array([x[0], y[0]], stats.dtype)
    labels = np.zeros(above.shape, np.int32)
    labels[corner] = components
    return labels, stats


def _polygon(inside: Bool[np.ndarray, "h w"], x: int, y: int, longest: int) -> tuple[tuple[int, int], ...]:
    contours, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
    )
    corners = cv2.approxPolyDP(contours[0], POLYGON_TOLERANCE * longest, closed=True)[:, 0]
    return tuple((int(column), int(row)) for column, row in corners)
