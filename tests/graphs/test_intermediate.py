from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from energyad.detector import AnomalyDetector
from energyad.errors import ModelError
from energyad.model.folder import GRAPH_FILE

openvino = pytest.importorskip("openvino")


@pytest.fixture
def exported(fitted_detector: AnomalyDetector, tmp_path: Path) -> Path:
    from energyad.runtimes.openvino import as_intermediate

    xml, weights = as_intermediate(fitted_detector.contents[GRAPH_FILE])
    (tmp_path / "model.xml").write_bytes(xml)
    (tmp_path / "model.bin").write_bytes(weights)
    return tmp_path / "model.xml"


def test_an_exported_file_is_opened(exported: Path, fitted_detector: AnomalyDetector) -> None:
    from energyad.runtimes.openvino import OpenVinoRuntime

    height, width = fitted_detector.input_shape
    raw = OpenVinoRuntime(exported, threads=1).run(np.zeros((1, height, width, 3), np.uint8))
    assert np.isfinite(raw.score).all()


CHANGES: list[tuple[str, Callable[[str], str], str]] = [
    ("offset", lambda text: text.replace('offset="0"', 'offset="999999999"', 1), r"outside its \.bin"),
    ("negative", lambda text: text.replace('offset="0"', 'offset="-9"', 1), r"outside its \.bin"),
    ("loop", lambda text: text.replace('type="Convolution"', 'type="Loop"', 1), "graph inside a layer"),
    ("size", lambda text: text.replace("<dim>3</dim>", "<dim>999999999</dim>", 1), "more than 268,435,456"),
    (
        "entity",
        lambda text: text.replace("?>", '?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>', 1),
        "document type",
    ),
    ("cut", lambda text: text[: len(text) // 2], "damaged one"),
]


@pytest.mark.parametrize(("change", "reason"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_a_changed_file_is_refused_by_path_and_as_bytes(
    change: Callable[[str], str], reason: str, exported: Path
) -> None:
    from energyad.runtimes.openvino import IntermediateModel, OpenVinoRuntime

    text = exported.read_text()
    assert change(text) != text
    exported.write_text(change(text))
    files = IntermediateModel(exported.read_bytes(), exported.with_suffix(".bin").read_bytes())
    for model in (exported, files):
        with pytest.raises(ModelError, match=reason) as caught:
            OpenVinoRuntime(model, threads=1)
        assert "\n" not in str(caught.value)


def test_weights_that_were_cut_off_are_refused(exported: Path) -> None:
    from energyad.runtimes.openvino import OpenVinoRuntime

    weights = exported.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"outside its \.bin"):
        OpenVinoRuntime(exported, threads=1)
