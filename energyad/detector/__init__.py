"""The class that an inspection pipeline embeds, and what works on a fitted detector: batches, recalibration, export."""

from energyad.detector.detector import AnomalyDetector

__all__ = ["AnomalyDetector"]
