"""One image after scoring: what the command line, the service, the watcher, reports and evaluations all work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np
from jaxtyping import Float32, UInt8

from energyad.errors import ImageError
from energyad.images.reading import ImageLike
from energyad.model.statistics import PartStatistics
from energyad.scoring.calibration import Calibration
from energyad.scoring.prediction import Prediction
from energyad.scoring.results import ImageResult, ModelReference, scored_result, unreadable_result


@dataclass(frozen=True, eq=False)
class ScoredImage:
    """One image that was scored.

    Attributes:
        source: The path, bytes, Pillow image or array that was given.
        model: The model that scored it.
        pixels: RGB, at the image's own size.
        prediction: Score, verdict, regions, and the heatmap at the image's own size.
        network_heatmap: The heatmap at the network's input size, energies.
        statistics: What drift is measured from: the score, and statistics of pixels and heatmap at the network's
            input size, as the fit measures them.
        shadow: What a candidate says of it, see `energyad.line.shadow`; None where none was asked.
    """

    source: ImageLike
    model: ModelReference
    pixels: UInt8[np.ndarray, "h w 3"]
    prediction: Prediction
    network_heatmap: Float32[np.ndarray, "rows columns"]
    statistics: PartStatistics
    shadow: ImageResult | None = None

    def require(self) -> Self:
        """Return the image itself, as it was scored."""
        return self

    def result(self, *, name: str | None = None, heatmap: str | None = None) -> ImageResult:
        """Return the result as JSON knows it.

        Args:
            name: What the result calls the image; its path by default, nothing for an image without one.
            heatmap: Where the image's overlay was written.
        """
        name = name_of(self.source) if name is None else name
        return scored_result(self.prediction, image=name, model=self.model, heatmap=heatmap)


@dataclass(frozen=True, eq=False)
class UnreadableImage:
    """One image that could not be read, and why.

    Attributes:
        source: The path, bytes, Pillow image or array that was given.
        model: The model that should have scored it.
        calibration: The model's thresholds, which are part of every result.
        error: Why it could not be read.
    """

    source: ImageLike
    model: ModelReference
    calibration: Calibration
    error: ImageError

    def require(self) -> ScoredImage:
        """Raise the ImageError that says why there is no score."""
        raise self.error

    def result(self, *, name: str | None = None, heatmap: str | None = None) -> ImageResult:
        """Return the result as JSON knows it, without score and with the reason; an overlay it never has.

        Args:
            name: What the result calls the image; its path by default, nothing for an image without one.
            heatmap: Ignored: nothing was drawn.
        """
        name = name_of(self.source) if name is None else name
        return unreadable_result(
            self.error.reason, image=name, model=self.model, calibration=self.calibration
        )


ScoringOutcome: TypeAlias = ScoredImage | UnreadableImage
"""What scoring one image ends in."""


def name_of(source: ImageLike) -> str | None:
    """Return an image's path as text that JSON can hold, whatever its bytes; None for an image without a path."""
    if not isinstance(source, str | Path):
        return None
    return str(source).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
