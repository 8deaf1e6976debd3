"""What the detector says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from energyad.images import reading
from energyad.scoring.calibration import Calibration, Verdict
from energyad.scoring.regions import Region, find_regions


@dataclass(frozen=True)
class Prediction:
    """What the detector says of one image.

    score: the heatmap's maximum, an energy without unit; higher is more abnormal, and comparable within one model
    only. heatmap: energies at the image's own pixels. p_value: how rarely a good part scores as high.
    verdict: "ng" above `threshold`, "review" above `review_threshold` (None where the model has none), else "ok".
    regions: where the image exceeds the threshold it exceeds. category: that it was taken for; None of a model of one.
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
        """Whether the verdict is ng."""
        return self.verdict == "ng"


def predict(
    heatmap: Float[np.ndarray, "rows columns"],
    calibration: Calibration,
    *,
    shape: tuple[int, int],
    category: str | None = None,
) -> Prediction:
    """Read the graph's heatmap of one image. shape: the image's own, height and width."""
    score, full = float(heatmap.max()), reading.resize_map(heatmap, *shape)
    # Resizing averages, and would lose the peak that is the score: the pixel at its centre keeps it.
    peak = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    place = tuple(
        (2 * at + 1) * new // (2 * old) for at, new, old in zip(peak, shape, heatmap.shape, strict=True)
    )
    np.minimum(full, full.dtype.type(score), out=full)
    full[place] = score
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
