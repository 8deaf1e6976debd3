"""energyad: visual anomaly detection with a learned energy function.

    import energyad
    detector = energyad.load("models/bottle")
    prediction = detector.score("part.png")
    prediction.score, prediction.is_anomalous, prediction.heatmap

Importing this package loads neither torch nor timm; fitting does.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from energyad.detector.detector import AnomalyDetector as AnomalyDetector
    from energyad.detector.recalibration import recalibrate as recalibrate
    from energyad.errors import EnergyadError as EnergyadError
    from energyad.scoring.prediction import Prediction as Prediction
    from energyad.settings import FitSettings as FitSettings

_HOMES = {
    "AnomalyDetector": "energyad.detector.detector",
    "Prediction": "energyad.scoring.prediction",
    "recalibrate": "energyad.detector.recalibration",
    "EnergyadError": "energyad.errors",
    "FitSettings": "energyad.settings",
}
__all__ = ["AnomalyDetector", "EnergyadError", "FitSettings", "Prediction", "load", "recalibrate"]


def load(folder: str | os.PathLike[str], *, threads: int | None = None) -> AnomalyDetector:
    """Load a model folder, checked against its hashes. threads: all cores by default. Raises ModelError."""
    from energyad.detector import AnomalyDetector

    return AnomalyDetector.load(os.fspath(folder), threads=threads)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'energyad' has no attribute '{name}'")
