"""The bytes of an image → what the model says of it: the same that the command line and the class say."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome, UnreadableImage
from energyad.errors import ImageError, ImageTooLarge
from energyad.images import reading
from energyad.images.isolated import IsolatedDecoder
from energyad.line import drift
from energyad.report.overlays import ColourScale, overlay_of
from energyad.report.sheet import fit_tile
from energyad.scoring.results import ImageResult
from energyad.service.uploads import Upload

PICTURE_SIDE: Final = 1024


class Pictures(BaseModel):
    """For a page to lay over each other: both of one size, at most 1024 pixels a side, as data URLs."""

    model_config = ConfigDict(frozen=True)

    image: str = Field(description="JPEG, turned upright")
    heatmap: str = Field(description="PNG: the colours of the model's scale, opaque")


class PicturedResult(ImageResult):
    """A result with pictures of it, where ?pictures=true asked for them."""

    pictures: Pictures


class ModelSession:
    """One model of the service, and the drift of the images that it scored.

    Used by the worker's thread alone, but for `decode`.

    Attributes:
        detector: The model.
        max_pixels: Images with more pixels are not decoded.
        decoder: Decodes in processes that can be ended; None to decode here.
        beside: Called with each image that was scored, see `energyad.line.shadow`.
        drift: The drift of the latest images, brought up to date every few images.
    """

    def __init__(
        self,
        detector: AnomalyDetector,
        *,
        max_pixels: int,
        decoder: IsolatedDecoder | None = None,
        beside: Callable[[ScoringOutcome], ScoringOutcome] = lambda image: image,
    ) -> None:
        self.detector = detector
        self.max_pixels = max_pixels
        self.decoder = decoder
        self.beside = beside
        self._scale = ColourScale(detector.threshold)
        reference = detector.manifest.good_parts
        self._monitor = drift.DriftMonitor(reference, model=detector.name)
        self._num_scored = 0
        self.drift = self._monitor.check()

    def score(self, upload: Upload) -> ScoringOutcome:
        """Decode and score one image. What is too large is refused before it is decoded."""
        return self.score_pixels(self.decode(upload))

    def decode(self, upload: Upload) -> UInt8[np.ndarray, "h w 3"] | UnreadableImage:
        """Decode one image, or say why that is not possible. For any thread."""
        detector = self.detector
        white = detector.manifest.input.white_level
        try:
            if self.decoder is None:
                return detector.read(upload.data, max_pixels=self.max_pixels)
            return self.decoder.decode(upload.data, max_pixels=self.max_pixels, white_level=white)
        except ImageError as error:
            return UnreadableImage(upload.data, detector.reference, detector.calibration, error)

    def score_pixels(self, pixels: UInt8[np.ndarray, "h w 3"] | UnreadableImage) -> ScoringOutcome:
        """Score what `decode` returned. Of the worker's thread alone."""
        if isinstance(pixels, UnreadableImage):
            return pixels
        image = self.beside(self.detector.score_image(pixels, max_pixels=self.max_pixels))
        if isinstance(image, ScoredImage):
            self._monitor.add(image.statistics)
            self._num_scored += 1
            if self._num_scored % drift.CHECK_EVERY == 0:
                self.drift = self._monitor.check()
        return image

    def with_pictures(self, image: ScoredImage, result: ImageResult) -> PicturedResult:
        """Add pictures of the image and its heatmap to its result."""
        small = fit_tile(image.pixels, min(PICTURE_SIDE, max(image.pixels.shape[:2])))
        colours = self._scale.colours(reading.resize_map(image.prediction.heatmap, *small.shape[:2]))
        pictures = Pictures(image=_data_url(small, ".jpg", "jpeg"), heatmap=_data_url(colours, ".png", "png"))
        return PicturedResult(**dict(result), pictures=pictures)


def overlay_png(image: ScoredImage) -> bytes:
    """Draw the heatmap over the image with its regions, as PNG at the image's own size: that of `score --heatmaps`."""
    return _encoded(overlay_of(image.pixels, image.prediction), ".png")


def status_of(error: ImageError) -> int:
    """Return the HTTP status of an image error: 413 for a too large image, 422 for one that cannot be used."""
    return 413 if isinstance(error, ImageTooLarge) else 422


def _encoded(picture: UInt8[np.ndarray, "h w 3"], suffix: str) -> bytes:
    return cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def _data_url(picture: UInt8[np.ndarray, "h w 3"], suffix: str, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(_encoded(picture, suffix)).decode()}"
