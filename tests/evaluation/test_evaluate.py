"""Laws of an evaluation: its rows count every image once, masks that are missing leave pixel figures empty."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError, ImageError
from energyad.evaluation.evaluate import Evaluation, evaluate, mask_at
from energyad.images.masks import read_mask


def test_defects_are_told_from_good_parts_and_found_where_they_are(evaluation: Evaluation) -> None:
    assert (evaluation.image_auroc or 0) > 0.75
    assert (evaluation.pixel_auroc or 0) > 0.85
    assert (evaluation.aupro or 0) > 0.5


def test_every_test_image_is_in_one_row(evaluation: Evaluation, demo_category: Category) -> None:
    assert sum(row.images for row in evaluation.types) == len(demo_category.test) == len(evaluation.items)
    assert {row.defect_type for row in evaluation.types} == {"good", *demo_category.defect_types}
    above = sum(item.score > evaluation.threshold for item in evaluation.items)
    assert sum(row.above_threshold for row in evaluation.types) == above


def test_scores_are_those_that_scoring_gives(
    evaluation: Evaluation, fitted_detector: AnomalyDetector
) -> None:
    for item in evaluation.items[::5]:
        assert item.score == pytest.approx(fitted_detector.score(item.path).score, rel=1e-5)


def test_an_evaluation_is_json_without_its_images(evaluation: Evaluation) -> None:
    values = json.loads(json.dumps(evaluation.to_dict()))
    assert {"image_auroc", "pixel_auroc", "aupro", "f1_max", "types"} <= set(values)
    assert "items" not in values


def test_without_masks_pixel_figures_are_none_and_image_figures_stay(
    evaluation: Evaluation, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    test = tuple(dataclasses.replace(item, mask=None) for item in demo_category.test)
    bare = evaluate(fitted_detector, dataclasses.replace(demo_category, test=test))
    assert (bare.pixel_auroc, bare.aupro) == (None, None)
    assert all(row.pixel_auroc is None and row.aupro is None for row in bare.types)
    assert bare.image_auroc == evaluation.image_auroc
    lacking = next(place for place, item in enumerate(test) if item.is_defective)
    test = (*demo_category.test[:lacking], test[lacking], *demo_category.test[lacking + 1 :])
    partly = evaluate(fitted_detector, dataclasses.replace(demo_category, test=test))
    assert (partly.pixel_auroc, partly.aupro) == (None, None)


def test_one_type_alone_has_the_figures_of_its_row(
    evaluation: Evaluation, fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    test = tuple(item for item in demo_category.test if item.defect_type in {"good", "stain"})
    alone = evaluate(fitted_detector, dataclasses.replace(demo_category, test=test))
    row = evaluation.row("stain")
    assert alone.image_auroc == pytest.approx(row.image_auroc)
    assert alone.pixel_auroc == pytest.approx(row.pixel_auroc)
    assert alone.aupro == pytest.approx(row.aupro)


def test_an_empty_or_unreadable_test_set_is_refused(
    fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no test images"):
        evaluate(fitted_detector, dataclasses.replace(demo_category, test=()))
    (tmp_path / "empty.png").touch()
    broken = dataclasses.replace(demo_category.test[0], path=tmp_path / "empty.png")
    with pytest.raises(ImageError, match=r"empty\.png"):
        evaluate(fitted_detector, dataclasses.replace(demo_category, test=(*demo_category.test, broken)))


def test_a_mask_keeps_place_and_area_at_another_size(demo_category: Category) -> None:
    item = next(item for item in demo_category.test if item.defect_type == "stain")
    assert item.mask is not None
    full = read_mask(item.mask)
    small = mask_at(item, (64, 64), of=full.shape)
    assert small.mean() == pytest.approx(full.mean(), rel=0.15)
    centres = [np.argwhere(mask).mean(axis=0) / len(mask) for mask in (full, small)]
    np.testing.assert_allclose(*centres, atol=0.01)
