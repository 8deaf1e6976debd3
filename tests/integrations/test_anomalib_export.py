"""Laws of imported exports: anomalib's own scores, unclamped, with thresholds, files and services of energyad."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import MVTecAD
from anomalib.deploy import ExportType, OpenVINOInferencer
from anomalib.engine import Engine
from anomalib.models import Patchcore
from starlette.testclient import TestClient
from typer.testing import CliRunner

from energyad.cli import app
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import ModelError
from energyad.integrations.anomalib_export import import_export
from energyad.service.app import create_app
from energyad.service.settings import ServiceSettings

SIZE = (128, 128)


@pytest.fixture(scope="module")
def weights(demo_category: Category, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PatchCore of random features, as anomalib exports it."""
    place = tmp_path_factory.mktemp("anomalib")
    torch.manual_seed(0)
    model = Patchcore(
        backbone="resnet18",
        pre_trained=False,
        layers=("layer1", "layer2"),
        coreset_sampling_ratio=0.02,
        pre_processor=Patchcore.configure_pre_processor(SIZE),
        visualizer=False,
        evaluator=False,
    )
    data = MVTecAD(
        root=demo_category.root.parent, category=demo_category.name, num_workers=0, train_batch_size=4
    )
    engine = Engine(default_root_dir=place, accelerator="cpu", logger=False, enable_progress_bar=False)
    engine.fit(model, datamodule=data)
    for kind in (ExportType.OPENVINO, ExportType.ONNX):
        engine.export(model, kind, export_root=place)
    return place / "weights"


@pytest.fixture(scope="module")
def good(demo_category: Category) -> list[Path]:
    return [item.path for item in demo_category.test if not item.is_defective]


@pytest.fixture(scope="module")
def imported(weights: Path, good: list[Path]) -> AnomalyDetector:
    return import_export(weights / "openvino" / "model.xml", good, name="gasket", review_rate=None)


pytestmark = pytest.mark.slow  # exports a model


@pytest.mark.parametrize("file", ["openvino/model.xml", "onnx/model.onnx"])
def test_scores_are_those_of_anomalib_where_it_does_not_clamp_them(
    weights: Path, good: list[Path], demo_category: Category, file: str, tmp_path: Path
) -> None:
    detector = import_export(weights / file, good, name="gasket")
    floor = detector.manifest.imported.heatmap_floor
    with contextlib.chdir(tmp_path):  # anomalib writes a cache there
        # Where a processor can, OpenVINO's own choice is bfloat16, and scores differ a little.
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        theirs = OpenVINOInferencer(weights / "openvino" / "model.xml", device="CPU", config=exact)
        for item in demo_category.test:
            pixels = detector.read(item.path)
            prediction = theirs.predict(np.repeat(pixels[None], 2, axis=0) / np.float32(255))
            score = float(np.asarray(prediction.pred_score)[0])
            ours = detector.score(pixels).score + floor
            assert (ours >= 1 - 1e-3) if score >= 1 else ours == pytest.approx(score, abs=2e-3)


def test_scores_are_not_clamped_and_the_heatmap_ends_in_the_score(
    imported: AnomalyDetector, demo_category: Category
) -> None:
    scored = [image.require() for image in imported.score_images([item.path for item in demo_category.test])]
    assert max(image.prediction.score for image in scored) + imported.manifest.imported.heatmap_floor > 1
    for image in scored:
        assert image.network_heatmap.max() == pytest.approx(image.prediction.score)
        assert image.network_heatmap.min() >= 0


def test_the_threshold_is_conformal_and_scores_do_not_depend_on_the_batch(
    imported: AnomalyDetector, good: list[Path], demo_category: Category
) -> None:
    scores = sorted(imported.score(path).score for path in good)
    assert list(imported.calibration.good_scores) == pytest.approx(scores)
    assert imported.threshold >= scores[-1]
    paths = [item.path for item in demo_category.test[:5]]  # an odd number, of a graph that takes two
    assert [p.score for p in imported.score_batch(paths)] == [imported.score(p).score for p in paths]


def test_program_and_service_score_with_an_imported_model(
    weights: Path, good: list[Path], demo_category: Category, tmp_path: Path
) -> None:
    bad = next(item.path for item in demo_category.test if item.is_defective)
    with contextlib.chdir(tmp_path):
        Path("good").symlink_to(good[0].parent)
        run = CliRunner()
        made = run.invoke(
            app, ["import", str(weights / "openvino" / "model.xml"), "--images", "good", "--name", "gasket"]
        )
        assert made.exit_code == 0, made.output
        scored = run.invoke(app, ["score", str(bad), "--model", "gasket", "--json", "--no-csv"])
        assert scored.exit_code in (0, 1)
        assert run.invoke(app, ["models"]).exit_code == 0
        assert run.invoke(app, ["export", "--model", "gasket"]).exit_code == 2
        detector = AnomalyDetector.load("models/gasket")
    service = create_app([detector], ServiceSettings(decode_seconds=None))
    with TestClient(service, base_url="http://localhost") as client:
        answer = client.post("/v1/score", content=bad.read_bytes()).json()
    assert f'"score":{answer["score"]}' in scored.stdout.replace(" ", "")


def test_what_is_no_export_is_refused_in_one_line(weights: Path, good: list[Path], tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"pickle")
    (tmp_path / "model.xml").write_text("<net/>")
    for name, reason in (("model.pt", "pickle"), ("model.xml", "cannot read"), ("model.bin", "no export")):
        with pytest.raises(ModelError, match=reason):
            import_export(tmp_path / name, good)


def test_pytorch_does_not_run_it(imported: AnomalyDetector, tmp_path: Path) -> None:
    imported.save(tmp_path / "gasket")
    with pytest.raises(ModelError, match="OpenVINO alone"):
        AnomalyDetector.load(tmp_path / "gasket", runtime="onnxruntime")
