"""What the detector says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32


@dataclass(frozen=True)
class Prediction:
    """What the detector says of one image.

    score: the highest smoothed energy, no unit; higher is more abnormal, and comparable within one model only.
    heatmap: energies at the image's own pixels. is_anomalous: score > threshold.
    """

    score: float
    heatmap: Float32[np.ndarray, "h w"]
    is_anomalous: bool
    threshold: float
