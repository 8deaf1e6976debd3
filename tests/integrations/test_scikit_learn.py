"""Laws of the estimator: scikit-learn's own checks, on images, and its tools around a real fit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import SettingsError
from energyad.images.reading import as_rgb
from energyad.integrations.scikit_learn import EnergyADEstimator
from tests.quick import QUICK
from tests.untraced import fit_untraced

NOT_FOR_IMAGES = {
    "check_classifier_data_not_an_array": "a container without a length is no list of images",
    "check_outliers_train": "gives rows as lists of numbers, which are no images",
    "check_outliers_fit_predict": "asks for `contamination`; the threshold holds a stated rate of false rejects",
}
"""Of scikit-learn's checks, those that do not apply to images, each with its reason."""


@dataclass(frozen=True)
class MeanDetector:
    """Scores an image by the distance of its mean from those of the images it was fitted on: a fit of no time."""

    mean: float
    threshold: float

    @classmethod
    def fit(cls, images: list[Any], **_: object) -> MeanDetector:
        means = np.array([as_rgb(image).mean() for image in images])
        return cls(float(means.mean()), float(abs(means - means.mean()).max()))

    def score_batch(self, images: list[Any]) -> list[Any]:
        @dataclass
        class Scored:
            score: float

        return [Scored(abs(float(as_rgb(image).mean()) - self.mean)) for image in images]


class UntracedDetector:
    """A real fit, whose head stays in PyTorch."""

    @staticmethod
    def fit(images: list[Any], *, threads: int | None, **options: Any) -> AnomalyDetector:
        return fit_untraced(images, **options)


class OnRows(EnergyADEstimator):
    """Draws each row of scikit-learn's test data as an image."""

    def fit(self, X: Any, y: object = None) -> OnRows:
        super().fit(self._draw(X), y)
        return self

    def predictions(self, X: Any) -> Any:
        return super().predictions(self._draw(X))

    def _draw(self, X: Any) -> Any:
        if not isinstance(X, np.ndarray) or X.ndim != 2:
            return X
        levels = np.clip(128 + 20 * X, 0, 255).astype(np.uint8)
        return [np.repeat(row[None, :, None], 3, axis=2) for row in levels]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


def test_the_checks_of_scikit_learn_pass_on_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energyad.integrations.scikit_learn.AnomalyDetector", MeanDetector)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checks that are skipped or expected to fail
        results = check_estimator(OnRows(), expected_failed_checks=NOT_FOR_IMAGES, on_fail=None)
    failed = {result["check_name"]: result["exception"] for result in results if result["status"] == "failed"}
    assert failed == {}
    assert sum(result["status"] == "passed" for result in results) > 25


def test_it_says_what_the_detector_says_with_the_signs_of_scikit_learn(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    paths = [item.path for item in demo_category.test]
    estimator = EnergyADEstimator()
    estimator.detector_, estimator.offset_ = fitted_detector, -fitted_detector.threshold
    predictions = fitted_detector.score_batch(paths)
    assert list(estimator.score_samples(paths)) == [-prediction.score for prediction in predictions]
    outliers = np.array([prediction.is_anomalous for prediction in predictions])
    assert outliers.any() and not outliers.all()
    assert np.array_equal(estimator.predict(paths), np.where(outliers, -1, 1))
    assert np.array_equal(estimator.decision_function(paths) < 0, outliers)
    assert np.array_equal(
        estimator.score_samples(np.array([str(p) for p in paths])), estimator.score_samples(paths)
    )


@pytest.mark.parametrize(
    ("X", "error"),
    [
        ("good.png", "a list or array"),
        (np.zeros((4, 5)), r"shape \(4, 5\)"),
        (iter(["a.png", "b.png"]), "a list or array"),
    ],
    ids=["one path", "rows", "an iterator"],
)
def test_what_is_no_list_of_images_is_refused(X: Any, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        EnergyADEstimator().fit(X)


def test_illegal_parameters_are_refused_when_it_is_fitted() -> None:
    for parameters in ({"settings": {"no.such": 1}}, {"settings": 3}, {"n_jobs": 0}):
        with pytest.raises(SettingsError):
            EnergyADEstimator(**parameters).fit(["a.png", "b.png"])


@pytest.mark.slow
def test_clones_in_pipelines_searches_and_cross_validation(
    demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("energyad.integrations.scikit_learn.AnomalyDetector", UntracedDetector)
    paths = np.array([str(path) for path in demo_category.train_good[:8]])
    quick = QUICK.with_values({"energy.pretrain_steps": 20, "synthetic_defects.discriminator_iterations": 5})
    good, bad = paths, np.array([str(item.path) for item in demo_category.test if item.is_defective])[:4]
    images, labels = np.concatenate([good, bad]), np.repeat([1, -1], [len(good), len(bad)])
    splits = [(np.arange(6), np.array([6, 7, 8, 9, 10, 11]))]
    pipeline = Pipeline(
        [("paths", FunctionTransformer(lambda X: X)), ("energy", EnergyADEstimator(settings=quick, n_jobs=1))]
    )
    search = GridSearchCV(
        pipeline,
        {"energy__random_state": [0]},
        scoring=make_scorer(roc_auc_score, response_method="decision_function"),
        cv=splits,
        refit=False,
    ).fit(images, labels)
    scores = search.cv_results_["mean_test_score"]
    assert 0.5 <= scores[0] <= 1
    again = cross_val_score(
        clone(pipeline).set_params(energy__random_state=0), images, labels, cv=splits, scoring=search.scoring
    )
    assert again[0] == scores[0]
