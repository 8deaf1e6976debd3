"""A detector as an outlier estimator of scikit-learn. Needs the extra `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from energyad.detector import AnomalyDetector
from energyad.errors import SettingsError
from energyad.images.reading import ImageLike
from energyad.scoring.prediction import Prediction
from energyad.settings import FitSettings


class EnergyADEstimator(OutlierMixin, BaseEstimator):
    """An `AnomalyDetector` with the interface of scikit-learn's outlier detectors.

    Images take the place of rows: `X` is a list or array of paths, a list of images as `AnomalyDetector.fit` takes
    them, or one array of RGB images (n, height, width, 3). Signs are scikit-learn's: a high `score_samples` is normal,
    `predict` gives 1 for inliers and −1 for outliers, which are the images whose verdict is "ng".

    Args:
        settings: Settings of the fit, or some of them by their names: `{"input.image_size": 256}`. None for the
            defaults.
        random_state: Seed of everything random in the fit; None takes the one of `settings`.
        n_jobs: Threads that score; None for all cores.

    Attributes:
        detector_: The fitted `AnomalyDetector`; `detector_.save(folder)` writes a model for `energyad score`.
        offset_: Minus the threshold; `decision_function` is `score_samples - offset_`.

    Example:
        >>> from sklearn.model_selection import GridSearchCV
        >>> estimator = EnergyADEstimator().fit(sorted(Path("good").glob("*.png")))
        >>> estimator.predict(["part.png"])
        array([-1])
    """

    detector_: AnomalyDetector
    offset_: float

    def __init__(
        self,
        *,
        settings: FitSettings | Mapping[str, object] | None = None,
        random_state: int | None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.settings = settings
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X: Sequence[ImageLike], y: object = None) -> Self:
        """Fit on images of good parts.

        Args:
            X: Images.
            y: Not used; outlier detectors have it for scikit-learn's sake.

        Raises:
            ValueError, TypeError: `X` is no sequence of images.
            SettingsError: A setting is unknown or has an illegal value.
            DataError: Fewer than two images.
            ImageError: An image cannot be read.
        """
        self.detector_ = AnomalyDetector.fit(
            _images(X), settings=self._fit_settings(), threads=_threads(self.n_jobs)
        )
        self.offset_ = -self.detector_.threshold
        return self

    def score_samples(self, X: Sequence[ImageLike]) -> Float[np.ndarray, " n"]:
        """Return minus the energies of images: the higher, the more normal."""
        return np.array([-prediction.score for prediction in self.predictions(X)])

    def decision_function(self, X: Sequence[ImageLike]) -> Float[np.ndarray, " n"]:
        """Return how far images are from the threshold: negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Sequence[ImageLike]) -> Int[np.ndarray, " n"]:
        """Return 1 for inliers and −1 for outliers."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def predictions(self, X: Sequence[ImageLike]) -> list[Prediction]:
        """Return all that the detector says of images: heatmaps, regions and p-values as well."""
        check_is_fitted(self)
        return self.detector_.score_batch(_images(X))

    def _fit_settings(self) -> FitSettings:
        settings = self.settings
        if settings is None:
            settings = FitSettings()
        elif isinstance(settings, Mapping):
            settings = FitSettings().with_values(settings)
        elif not isinstance(settings, FitSettings):
            raise SettingsError(
                f"settings is a {type(settings).__name__}; give FitSettings or values by their names"
            )
        if self.random_state is not None:
            settings = settings.with_values({"seed": int(self.random_state)})
        return settings

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.no_validation = True  # of numbers in rows: each image is checked as it is read
        return tags


def _threads(n_jobs: int | None) -> int | None:
    if n_jobs is None or n_jobs == -1:
        return None
    if n_jobs < 1:
        raise SettingsError(f"n_jobs is {n_jobs}; give 1 or more, or -1 for all cores")
    return n_jobs


def _images(X: Any) -> list[ImageLike]:
    if issparse(X):
        raise TypeError("X is sparse, and sparse data are no images; give images or their paths")
    if isinstance(X, str | bytes) or not hasattr(X, "__len__"):
        raise ValueError(f"X is a {type(X).__name__}; give a list or array of images or paths")
    if isinstance(X, np.ndarray) and X.dtype != object and X.dtype.kind != "U" and X.ndim not in (3, 4):
        raise ValueError(
            f"X is an array of shape {X.shape}; give images (n, height, width, 3), or their paths"
        )
    return [str(image) if isinstance(image, np.str_) else image for image in X]
