"""Laws of the detector for PyOD: its attributes, its probabilities and its combinations, of real scores."""

from __future__ import annotations

import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector

pytest.importorskip("pyod")
from pyod.models.combination import average, maximization
from pyod.utils.utility import standardizer

from energyad.integrations import pyod, scikit_learn


@pytest.fixture
def fitted(
    fitted_detector: AnomalyDetector, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> pyod.EnergyADDetector:
    """Fitted without the time of a fit: scores are real ones."""

    class Fitted:
        fit = staticmethod(lambda *_, **__: fitted_detector)

    monkeypatch.setattr(scikit_learn, "AnomalyDetector", Fitted)
    return pyod.EnergyADDetector(contamination=0.2).fit(demo_category.train_good)


def test_attributes_are_of_the_images_it_was_fitted_on(
    fitted: pyod.EnergyADDetector, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    scores = [prediction.score for prediction in fitted_detector.score_batch(demo_category.train_good)]
    assert list(fitted.decision_scores_) == scores
    assert np.array_equal(fitted.labels_, (np.array(scores) > fitted.threshold_).astype(int))
    assert 0 < fitted.labels_.mean() <= 0.25


def test_predictions_and_probabilities_follow_the_scores(
    fitted: pyod.EnergyADDetector, demo_category: Category
) -> None:
    paths = [item.path for item in demo_category.test]
    scores, probabilities = fitted.decision_function(paths), fitted.predict_proba(paths)
    assert np.array_equal(fitted.predict(paths), (scores > fitted.threshold_).astype(int))
    assert probabilities.shape == (len(paths), 2) and np.allclose(probabilities.sum(axis=1), 1)
    order = np.argsort(scores)
    assert (np.diff(probabilities[order, 1]) >= 0).all()


def test_scores_of_several_detectors_combine(fitted: pyod.EnergyADDetector, demo_category: Category) -> None:
    scores = fitted.decision_function([item.path for item in demo_category.test])
    both = standardizer(np.stack([scores, 2 * scores], axis=1))
    assert np.allclose(average(both), both[:, 0]) and np.allclose(maximization(both), both[:, 0])


def test_a_contamination_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="contamination"):
        pyod.EnergyADDetector(contamination=0.7)
