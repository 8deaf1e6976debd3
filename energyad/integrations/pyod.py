"""A detector as one of PyOD 3, for its combinations and its comparisons. Needs the extras `fit` and `pyod`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from pyod.models.base import BaseDetector

from energyad.detector import AnomalyDetector
from energyad.images.reading import ImageLike
from energyad.integrations.scikit_learn import EnergyADEstimator
from energyad.settings import FitSettings


class EnergyADDetector(BaseDetector):
    """An `AnomalyDetector` with the interface of PyOD's detectors: high scores are abnormal, labels are 0 and 1.

    `threshold_` and `labels_` are PyOD's, from the share `contamination` of the images it was fitted on. The threshold
    that keeps a stated rate of false rejects on new parts is `detector_.threshold`.

    Args:
        contamination: The share of the images fitted on that PyOD calls outliers, in (0, 0.5].
        settings: Settings of the fit, see `EnergyADEstimator`.
        random_state: Seed of everything random in the fit.
        n_jobs: Threads that score; None for all cores.

    Attributes:
        detector_: The fitted `AnomalyDetector`.
        decision_scores_: Energies of the images it was fitted on.

    Example:
        >>> detector = EnergyADDetector(contamination=0.02).fit(good)
        >>> detector.predict_proba(parts)[:, 1]
    """

    detector_: AnomalyDetector
    decision_scores_: Float[np.ndarray, " n"]
    threshold_: float

    def __init__(
        self,
        contamination: float = 0.02,
        *,
        settings: FitSettings | Mapping[str, object] | None = None,
        random_state: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        super().__init__(contamination=contamination)
        self.settings = settings
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Sequence[ImageLike], y: object = None) -> Self:
        """Fit on images of good parts; `y` is not used. Raises what `EnergyADEstimator.fit` raises."""
        self._estimator = EnergyADEstimator(
            settings=self.settings, random_state=self.random_state, n_jobs=self.n_jobs
        ).fit(X)
        self.detector_ = self._estimator.detector_
        self._set_n_classes(y)
        self.decision_scores_ = self.decision_function(X)
        self._process_decision_scores()
        return self

    def decision_function(self, X: Sequence[ImageLike]) -> Float[np.ndarray, " n"]:
        """Return the energies of images: the higher, the more abnormal."""
        energies: Float[np.ndarray, " n"] = -self._estimator.score_samples(X)
        return energies

    def predict_proba(self, X: Sequence[ImageLike], **options: Any) -> Any:
        """Return PyOD's probabilities, of being normal and of being an outlier, for each image."""
        images = np.empty(len(X), dtype=object)  # PyOD asks for X.shape
        images[:] = list(X)
        return super().predict_proba(images, **options)
