"""The bytes of an image → what the model says of it: the same that the command line and the class say."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field

from energyad.detector import AnomalyDetector
from energyad.detector.batch import measure_prediction
from energyad.errors import ImageError, ImageTooLarge
from energyad.images import reading
from energyad.line import drift
from energyad.model.manifest import reference_statistics
from energyad.report.overlays import ColourScale, overlay_of
from energyad.report.sheet import fit_tile
from energyad.scoring import results
from energyad.scoring.prediction import Prediction
from energyad.scoring.results import ImageResult
from energyad.service.uploads import Upload

CHECK_EVERY: Final = 10
PICTURE_SIDE: Final = 1024


class Pictures(BaseModel):
    """For a page to lay over each other: both of one size, at most 1024 pixels a side, as data URLs."""

    model_config = ConfigDict(frozen=True)

    image: str = Field(description="JPEG, turned upright")
    heatmap: str = Field(description="PNG: the colours of the model's scale, opaque")


class PicturedResult(ImageResult):
    """A result with pictures of it, where ?pictures=true asked for them."""

    pictures: Pictures


@dataclass(frozen=True)
class Inspected:
    """One image that was scored."""

    pixels: UInt8[np.ndarray, "h w 3"]
    prediction: Prediction
    result: ImageResult


class ModelSession:
    """One model of the service. Used by the worker's thread alone."""

    def __init__(self, detector: AnomalyDetector, *, max_pixels: int) -> None:
        self.detector = detector
        self.max_pixels = max_pixels
        self.scale = ColourScale(detector.threshold)
        reference = reference_statistics(detector.manifest)
        self._monitor = drift.DriftMonitor(reference, model=detector.name)
        self._seen = 0
        self.drift = self._monitor.check()

    def inspect(self, upload: Upload) -> Inspected:
        """Decode and score. Raises ImageError, ImageTooLarge before anything large is decoded."""
        detector = self.detector
        pixels = reading.decode_image(
            upload.data, max_pixels=self.max_pixels, white_level=detector.manifest.input.white_level
        )
        prediction = detector.score_pixels([pixels])[0]
        self._watch(pixels, prediction)
        result = results.scored(prediction, image=upload.label, model=detector.reference)
        return Inspected(pixels, prediction, result)

    def refused(self, upload: Upload, error: ImageError) -> ImageResult:
        """The result of an image that could not be scored."""
        detector = self.detector
        return results.unreadable(
            error.reason, image=upload.label, model=detector.reference, calibration=detector.calibration
        )

    def result_of(self, upload: Upload) -> ImageResult:
        """The result, also where there is none. Never raises ImageError."""
        try:
            return self.inspect(upload).result
        except ImageError as error:
            return self.refused(upload, error)

    def pictured(self, inspected: Inspected) -> PicturedResult:
        """The result with its pictures."""
        pixels, prediction = inspected.pixels, inspected.prediction
        small = fit_tile(pixels, min(PICTURE_SIDE, max(pixels.shape[:2])))
        colours = self.scale.colours(reading.resize_map(prediction.heatmap, *small.shape[:2]))
        pictures = Pictures(image=_data_url(small, ".jpg", "jpeg"), heatmap=_data_url(colours, ".png", "png"))
        return PicturedResult(**dict(inspected.result), pictures=pictures)

    def overlay(self, inspected: Inspected) -> bytes:
        """The heatmap over the image with its regions, as PNG at the image's own pixels: that of `score --heatmaps`."""
        return _encoded(overlay_of(inspected.pixels, inspected.prediction), ".png")

    def _watch(self, pixels: UInt8[np.ndarray, "h w 3"], prediction: Prediction) -> None:
        self._monitor.add(measure_prediction(self.detector, pixels, prediction))
        self._seen += 1
        if self._seen % CHECK_EVERY == 0:
            self.drift = self._monitor.check()


def status_of(error: ImageError) -> int:
    """413 for what is too large, 422 for what is no image that can be used."""
    return 413 if isinstance(error, ImageTooLarge) else 422


def _encoded(picture: UInt8[np.ndarray, "h w 3"], suffix: str) -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def _data_url(picture: UInt8[np.ndarray, "h w 3"], suffix: str, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(_encoded(picture, suffix)).decode()}"
