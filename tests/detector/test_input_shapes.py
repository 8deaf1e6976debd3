"""Laws of models whose input is wider than high or higher than wide: every path through them agrees."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from energyad import AnomalyDetector
from energyad.data.datasets import Category, TestItem
from energyad.detector import export
from energyad.evaluation.evaluate import evaluate
from energyad.fitting.backbone import open_backbone
from energyad.images.reading import read_image, resize, write_png
from tests.quick import TINY

pytestmark = pytest.mark.slow  # fits several models

TALL = (128, 64)
TILED = {"input.image_size": TALL, "input.tiles": (1, 3)}
SHAPES = {"tall": TALL, "wide in tiles": (128, 160)}


SETTINGS = TINY.with_values(
    {
        "features.coarse_strides": (),
        "memory_bank.rerank_banks": 0,
        "energy.latent_dim": 24,
        "energy.pretrain_steps": 100,
        "dxmi.iterations": 0,
    }
)


@pytest.fixture(scope="module", params=list(SHAPES))
def detector(request: pytest.FixtureRequest, demo_category: Category) -> AnomalyDetector:
    shape = SHAPES[request.param]
    values = {"input.image_size": TALL} if shape == TALL else TILED
    roi = np.ones(shape, dtype=bool)
    roi[-8:] = False
    return AnomalyDetector.fit(
        [resize(read_image(path), shape) for path in demo_category.train_good[:8]],
        name=request.param,
        settings=SETTINGS.with_values(values),
        roi=roi,
        threads=1,
    )


def test_heatmaps_have_the_image_s_own_shape_and_stay_in_the_region(
    detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    height, width = detector.input_shape
    image = resize(read_image(demo_category.test[0].path), (2 * height, 2 * width))
    prediction = detector.score(image)
    assert prediction.heatmap.shape == (2 * height, 2 * width)
    assert prediction.heatmap[: 2 * height - 20].min() > 0 and not prediction.heatmap[-14:].any()
    card = detector.contents["README.md"].decode()
    assert f"{width} × {height} px" in card
    detector.save(tmp_path / "model")
    assert AnomalyDetector.load(tmp_path / "model", threads=1).score(image).score == prediction.score


@pytest.mark.parametrize("kind", sorted(export.SUFFIXES))
def test_exports_score_as_pytorch_does(
    kind: str, detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    if kind == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    written = export.export_model(detector, kind, tmp_path / f"part{export.SUFFIXES[kind]}")
    agreement = export.verify(detector, written, [item.path for item in demo_category.test[:3]])
    assert agreement.within(export.TOLERANCE)


def test_a_defect_is_hottest_where_it_is_and_masks_are_compared_at_the_input_s_shape(
    detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    height, width = detector.input_shape
    good = resize(read_image(demo_category.test[0].path), (height, width))
    row, column = height // 3, 2 * width // 3
    mask = np.zeros((height, width), dtype=bool)
    mask[row - 8 : row + 8, column - 8 : column + 8] = True
    bad = np.where(mask[:, :, None], np.array([255, 0, 255], np.uint8), good)
    paths = [write_png(tmp_path / f"{name}.png", each) for name, each in (("good", good), ("bad", bad))]
    items = (
        TestItem(paths[0], "good", None),
        TestItem(paths[1], "bad", write_png(tmp_path / "mask.png", mask)),
    )
    evaluation = evaluate(detector, Category("part", tmp_path, (), items))
    assert evaluation.resolution == (height, width)
    assert evaluation.pixel_auroc is not None and evaluation.pixel_auroc > 0.9


def test_int8_keeps_the_shape(demo_category: Category) -> None:
    settings = SETTINGS.with_values({"input.image_size": TALL, "features.precision": "int8"})
    images = demo_category.train_good[:8]
    backbone = open_backbone(images, settings, weights_file=None, threads=1, skip_bad=False)
    features = backbone.session.run(np.zeros((2, *TALL, 3), np.uint8))
    assert features.shape[2:] == backbone.extractor.grid.inner and np.isfinite(features).all()
    assert features.shape[2] > features.shape[3] > 0
