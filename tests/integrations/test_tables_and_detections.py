"""Laws of results as tables and as detections: nothing is lost or moved on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage
from energyad.scoring.results import ImageResult

pandas = pytest.importorskip("pandas")
supervision = pytest.importorskip("supervision")

from energyad.integrations.pandas import regions_frame, results_frame  # noqa: E402
from energyad.integrations.supervision import detections_of  # noqa: E402


@pytest.fixture(scope="module")
def scored(fitted_detector: AnomalyDetector, demo_category: Category) -> list[ScoredImage]:
    return [
        image.require() for image in fitted_detector.score_images([item.path for item in demo_category.test])
    ]


@pytest.fixture(scope="module")
def results(
    scored: list[ScoredImage], fitted_detector: AnomalyDetector, tmp_path_factory: pytest.TempPathFactory
) -> list[ImageResult]:
    """With one of a file that cannot be read."""
    bad: Path = tmp_path_factory.mktemp("bad") / "bad.png"
    bad.write_bytes(b"no image")
    return [*(image.result() for image in scored), fitted_detector.score_image(bad).result()]


def test_a_table_has_a_row_for_each_image_and_nothing_for_what_is_unknown(results: list[ImageResult]) -> None:
    frame = results_frame(results)
    assert list(frame.image) == [result.image for result in results]
    assert list(frame.score[:-1]) == [result.score for result in results[:-1]]
    assert frame.iloc[-1][["score", "verdict", "regions", "width"]].isna().all() and frame.iloc[-1].error
    assert dict(frame.dtypes)["width"] == "Int64" and results_frame([]).dtypes.equals(frame.dtypes)


def test_a_table_of_regions_has_all_of_them_in_order(results: list[ImageResult]) -> None:
    frame = regions_frame(results)
    assert len(frame) == sum(len(result.regions) for result in results) > 0
    first = next(result for result in results if result.regions)
    row = frame[frame.image == first.image].iloc[0]
    assert (row.x, row.y, row.peak) == (first.regions[0].box.x, first.regions[0].box.y, first.regions[0].peak)


def test_detections_cover_the_regions(scored: list[ScoredImage]) -> None:
    with_regions = [image.prediction for image in scored if image.prediction.regions]
    assert with_regions
    for prediction in with_regions:
        detections = detections_of(prediction)
        assert len(detections) == len(prediction.regions)
        for number, region in enumerate(prediction.regions):
            x, y, width, height = region.box
            assert list(detections.xyxy[number]) == [x, y, x + width, y + height]
            rows, columns = np.nonzero(detections.mask[number])
            assert (columns.min(), rows.min()) == (x, y)
            assert (columns.max(), rows.max()) == (x + width - 1, y + height - 1)
            assert detections.confidence[number] == pytest.approx(1 - region.p_value)


def test_an_image_that_is_ok_has_no_detections(scored: list[ScoredImage]) -> None:
    ok = next(image.prediction for image in scored if image.prediction.verdict == "ok")
    assert len(detections_of(ok)) == 0
