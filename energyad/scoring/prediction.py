"""What the detector says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from energyad.errors import ImageError
from energyad.images import reading
from energyad.scoring.calibration import Calibration, Verdict
from energyad.scoring.regions import Region, find_regions

NOT_FINITE = (
    "the model gives no finite score for it; look at the image, and fit the model again or restore it"
)


@dataclass(frozen=True)
class Prediction:
    """What the detector says of one image.

    Attributes:
        score: The heatmap's maximum, an energy without unit; higher is more abnormal. Comparable within one model.
        heatmap: Energies at the image's own size.
        threshold: Images above it are "ng".
        review_threshold: Images above it, and not above `threshold`, are for "review"; None where there is no review.
        p_value: How rarely a good part scores as high.
        verdict: "ng", "review" or "ok".
        regions: Where the heatmap is above the threshold that the image exceeds; none where it is ok.
        category: The category that the image was classified as; None for a model of one.

    Example:
        >>> prediction = AnomalyDetector.load("models/gasket").score("part.png")
        >>> prediction.verdict, prediction.score, prediction.p_value
    """

    score: float
    heatmap: Float32[np.ndarray, "h w"]
    threshold: float
    review_threshold: float | None
    p_value: float
    verdict: Verdict
    regions: tuple[Region, ...]
    category: str | None = None

    @property
    def is_anomalous(self) -> bool:
        """Whether the verdict is "ng"."""
        return self.verdict == "ng"


def predict(
    heatmap: Float[np.ndarray, "rows columns"],
    calibration: Calibration,
    *,
    shape: tuple[int, int],
    category: str | None = None,
) -> Prediction:
    """Turn the network's heatmap of one image into score, verdict and regions.

    Args:
        heatmap: Energies at the network's input size.
        calibration: The model's thresholds.
        shape: Height and width of the image.
        category: The category that the image was classified as, by a model for several.

    Raises:
        ImageError: An energy is not finite, which no threshold would reject.
    """
    if not np.isfinite(heatmap).all():
        raise ImageError("image", NOT_FINITE)
    score, full = float(heatmap.max()), reading.resize_map(heatmap, *shape)
    # Resizing averages, and would lose the peak that is the score: the pixel at its centre keeps it.
    peak = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    window = tuple(
        (2 * at + 1) * new // (2 * old) for at, new, old in zip(peak, shape, heatmap.shape, strict=True)
    )
    np.minimum(full, full.dtype.type(score), out=full)
    full[window] = score
    return Prediction(
        score=score,
        heatmap=full,
        threshold=calibration.threshold,
        review_threshold=calibration.review_threshold,
        p_value=calibration.p_value(score),
        verdict=calibration.verdict(score),
        regions=find_regions(full, calibration),
        category=category,
    )
