from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from energyad import AnomalyDetector
from energyad.data.datasets import Category
from energyad.data.demo import render_good
from energyad.detector import export
from energyad.errors import ModelError, SettingsError
from energyad.images.reading import write_png
from energyad.runtimes import RawScores
from tests import ROOT

EXAMPLE = ROOT / "examples" / "score_onnx.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(export.SUFFIXES))
def test_an_export_scores_as_pytorch_does(
    kind: str, fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    if kind == "openvino" and importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    place = tmp_path / f"part{export.SUFFIXES[kind]}"
    written = export.export_model(fitted_detector, kind, place)
    paths = [item.path for item in demo_category.test[:5]]
    agreement = export.verify(fitted_detector, written, paths)
    assert agreement.num_images == 5 and agreement.within(export.TOLERANCE)
    assert {path.name for path in tmp_path.iterdir()} == {
        path.name for path in (written.graph, *written.others, written.metadata)
    }


def test_the_metadata_says_all_that_a_program_needs(fitted_detector: AnomalyDetector, tmp_path: Path) -> None:
    written = export.export_model(fitted_detector, "onnx", tmp_path / "part.onnx")
    facts = json.loads(written.metadata.read_text(encoding="utf-8"))
    assert facts["input"]["shape"] == ["batch", 128, 128, 3]
    assert (facts["input"]["dtype"], facts["input"]["colour_order"]) == ("uint8", "RGB")
    assert facts["threshold"] == fitted_detector.threshold
    assert facts["sha256"] == fitted_detector.reference.sha256


def test_a_graph_that_differs_is_refused(
    fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.open_exported

    def slightly_off(graph: Path) -> export.Score:
        score = real(graph)

        def run(pixels: np.ndarray) -> RawScores:
            found = score(pixels)
            return RawScores(found.score * np.float32(1.001), found.heatmap)

        return run

    monkeypatch.setattr(export, "open_exported", slightly_off)
    written = export.export_model(fitted_detector, "onnx", tmp_path / "part.onnx")
    with pytest.raises(ModelError, match=r"score differs by 1\.0e-03.*tolerance 1e-04"):
        export.verify(fitted_detector, written, [demo_category.test[0].path])


def test_formats_and_suffixes_are_checked(fitted_detector: AnomalyDetector, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'tflite': choose among onnx, openvino, pt2"):
        export.export_model(fitted_detector, "tflite", tmp_path / "part.tflite")
    with pytest.raises(SettingsError, match=r"ends in \.onnx"):
        export.export_model(fitted_detector, "onnx", tmp_path / "part.bin")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "tolerance"),
    # Enlarging, OpenCV interpolates with eleven bits, and every fifth byte is one level off.
    [(128, 1e-5), (200, 1e-5), (384, 1e-5), (100, 0.1)],
)
def test_the_example_of_thirty_lines_gives_the_programs_scores(
    size: int, tolerance: float, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    graph = export.export_model(fitted_detector, "onnx", tmp_path / "part.onnx").graph
    paths = [write_png(tmp_path / f"{i}.png", render_good(0, "test", i, size=size)) for i in range(2)]
    command = [sys.executable, str(EXAMPLE), str(graph), *map(str, paths)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line, path in zip(output.splitlines(), paths, strict=True):
        score, verdict, name = line.split()
        expected = fitted_detector.score(path)
        assert float(score) == pytest.approx(expected.score, rel=tolerance)
        assert (verdict, name) == (expected.verdict.replace("review", "ok"), str(path))


def test_the_example_is_short_and_needs_neither_torch_nor_the_package() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30
    assert "torch" not in text and "energyad" not in text
