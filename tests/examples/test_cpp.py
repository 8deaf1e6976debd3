"""Laws of the example in C++: its scores are the detector's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector, export
from energyad.images.reading import read_image, resize
from tests import ROOT

HEADERS = os.environ.get("ENERGYAD_ORT_HEADERS")  # set by `make examples`, which fetches them
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(HEADERS is None, reason="make examples runs this"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, linked with the runtime that Python's package holds."""
    folder = tmp_path_factory.mktemp("cpp")
    (library,) = Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*")
    for name in ("libonnxruntime.so.1", library.name):
        (folder / name).symlink_to(library)
    source = ROOT / "examples" / "cpp" / "score.cpp"
    command = [
        "g++",
        "-std=c++17",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-I",
        str(ROOT / str(HEADERS)),
        str(source),
    ]
    command += [str(folder / "libonnxruntime.so.1"), f"-Wl,-rpath,{folder}", "-o", str(folder / "score")]
    subprocess.run(command, check=True)
    return folder / "score"


def test_scores_and_verdicts_are_the_detectors(
    program: Path, fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    export.export_model(fitted_detector, "onnx", tmp_path / "part.onnx")
    paths, pixels = [], []
    shapes = [(128, 128), (201, 300), (64, 90), (128, 500)]
    for number, item in enumerate(demo_category.test[:8]):
        image = resize(read_image(item.path), shapes[number % len(shapes)])
        paths.append(tmp_path / f"{number}.ppm")
        Image.fromarray(image).save(paths[-1])
        pixels.append(image)
    command = [str(program), str(tmp_path / "part.onnx"), str(fitted_detector.threshold), *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = [line.split(" ", 2) for line in done.stdout.splitlines()]
    predictions = fitted_detector.score_pixels(pixels)
    expected = np.array([prediction.score for prediction in predictions])
    apart = np.abs(np.array([float(row[0]) for row in rows]) - expected) / expected.max()
    is_enlarged = np.arange(len(paths)) % len(shapes) == 2
    assert apart[~is_enlarged].max() <= 1e-4
    assert apart[is_enlarged].max() <= 1e-2  # OpenCV rounds its weights of linear interpolation
    assert [row[1] == "ng" for row in rows] == [prediction.is_anomalous for prediction in predictions]
    assert {row[1] for row in rows} == {"ok", "ng"}
    assert [row[2] for row in rows] == [str(path) for path in paths]


def test_a_file_that_is_no_image_and_a_graph_that_is_not_there_are_named(
    program: Path, tmp_path: Path
) -> None:
    (tmp_path / "part.ppm").write_bytes(b"P5 1 1 255 ?")
    done = subprocess.run(
        [str(program), "nothing.onnx", "1", str(tmp_path / "part.ppm")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "nothing.onnx" in done.stderr
