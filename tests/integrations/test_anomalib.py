"""Laws of the bridge to anomalib: the same images, the same scores, the same figures on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch, MVTecAD
from anomalib.engine import Engine
from anomalib.metrics import AUROC, Evaluator

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError, ModelError
from energyad.evaluation.evaluate import Evaluation, evaluate
from energyad.integrations.anomalib import EnergyAD, category_of, image_batch
from tests.quick import TINY
from tests.untraced import untraced_heads

pytestmark = pytest.mark.slow


@pytest.fixture
def mvtec(demo_category: Category) -> MVTecAD:
    return MVTecAD(root=demo_category.root.parent, category=demo_category.name, num_workers=0)


@pytest.fixture
def folder(demo_category: Category) -> Folder:
    kinds = [f"test/{kind}" for kind in demo_category.defect_types]
    return Folder(
        name="parts",
        root=demo_category.root,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir=kinds,
        mask_dir=[f"ground_truth/{kind}" for kind in demo_category.defect_types],
        val_split_mode="same_as_test",
        num_workers=0,
    )


def engine(place: Path, **options: Any) -> Engine:
    return Engine(
        default_root_dir=place, accelerator="cpu", logger=False, enable_progress_bar=False, **options
    )


def test_a_data_module_gives_the_images_that_its_folder_holds(
    mvtec: MVTecAD, demo_category: Category
) -> None:
    category = category_of(mvtec)
    assert category.name == demo_category.name
    assert sorted(category.train_good) == sorted(demo_category.train_good)
    assert {(item.path, item.defect_type, item.mask) for item in category.test} == {
        (item.path, item.defect_type, item.mask) for item in demo_category.test
    }


def test_figures_of_a_data_module_are_those_of_its_folder(
    mvtec: MVTecAD, folder: Folder, fitted_detector: AnomalyDetector, evaluation: Evaluation
) -> None:
    for datamodule in (mvtec, folder):
        figures = evaluate(fitted_detector, category_of(datamodule))
        for name in ("image_auroc", "pixel_auroc", "aupro", "f1_max"):
            assert getattr(figures, name) == pytest.approx(getattr(evaluation, name), abs=1e-6), name


def test_a_data_module_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="parts"):
        category_of(Folder(name="parts", root=tmp_path, normal_dir="none", num_workers=0))


def test_the_engine_tests_with_the_figures_of_evaluate(
    mvtec: MVTecAD, fitted_detector: AnomalyDetector, evaluation: Evaluation, tmp_path: Path
) -> None:
    metrics = [
        AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
        AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_"),
    ]
    model = EnergyAD(fitted_detector, evaluator=Evaluator(test_metrics=metrics), visualizer=False)
    (figures,) = engine(tmp_path).test(model, datamodule=mvtec)
    assert figures["image_AUROC"] == pytest.approx(evaluation.image_auroc, abs=1e-4)
    assert figures["pixel_AUROC"] == pytest.approx(evaluation.pixel_auroc, abs=1e-4)


def test_the_engine_predicts_energies_that_nothing_clamps(
    fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    image = next(item for item in demo_category.test if item.is_defective).path
    model = EnergyAD(fitted_detector, visualizer=False)
    batches = engine(tmp_path).predict(model, data_path=image.parent)
    scores = {
        path: float(score)
        for batch in batches
        for path, score in zip(batch.image_path, batch.pred_score, strict=True)
    }
    expected = {str(p): fitted_detector.score(p) for p in sorted(image.parent.iterdir())}
    assert scores == {
        path: pytest.approx(prediction.score, rel=1e-6) for path, prediction in expected.items()
    }
    assert all(
        bool(label) == expected[path].is_anomalous
        for batch in batches
        for path, label in zip(batch.image_path, batch.pred_label, strict=True)
    )


def test_a_batch_of_scored_images_holds_what_was_scored(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    scored = [
        image.require()
        for image in fitted_detector.score_images([item.path for item in demo_category.test[:3]])
    ]
    batch = image_batch(scored)
    assert isinstance(batch, ImageBatch) and batch.batch_size == 3
    assert batch.pred_score.tolist() == pytest.approx([image.prediction.score for image in scored])
    assert np.array_equal(
        batch.anomaly_map.squeeze(1).numpy(), np.stack([image.network_heatmap for image in scored])
    )
    assert (
        batch.image.shape == (3, 3, *fitted_detector.input_shape)
        and 0 <= batch.image.min() <= batch.image.max() <= 1
    )
    with pytest.raises(DataError):
        image_batch([])


def test_tensors_score_as_the_images_they_are_made_of(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    pixels = fitted_detector.read(demo_category.test[0].path)
    batch = EnergyAD(fitted_detector)(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255)
    assert float(batch.pred_score) == pytest.approx(fitted_detector.score(pixels).score)


@pytest.mark.slow
def test_the_engine_fits_a_detector_that_its_checkpoint_holds(
    mvtec: MVTecAD, tmp_path: Path, demo_category: Category
) -> None:
    with pytest.raises(ModelError, match="not fitted"):
        _ = EnergyAD().detector
    running = engine(tmp_path)
    with untraced_heads():
        running.fit(EnergyAD(settings=TINY, visualizer=False, evaluator=False), datamodule=mvtec)
    fitted = running.model.detector
    assert fitted.manifest.provenance.num_images == len(demo_category.train_good)
    running.trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = EnergyAD.load_from_checkpoint(tmp_path / "model.ckpt").detector
    assert (again.name, again.threshold) == (demo_category.name, fitted.threshold)
