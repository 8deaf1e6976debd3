from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from energyad.features.extractor import load_extractor
from energyad.features.grids import Grid
from energyad.files import CACHE_VARIABLE
from energyad.graphs import export
from energyad.graphs.cache import extractor_graph
from energyad.runtimes.onnx import OnnxFeatures

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """A backbone's real trace."""
    return export.export_extractor(load_extractor("tf_efficientnet_lite0", image_size=64, strides=(4,)))


@pytest.fixture
def traced(graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts how often a backbone is really traced; the trace itself is a stand-in."""
    calls: list[int] = []

    def count(extractor: object) -> object:
        calls.append(1)
        return graph

    monkeypatch.setattr(export, "export_extractor", count)
    return calls


def test_a_backbone_is_traced_once(
    traced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    extractor = load_extractor("tf_efficientnet_lite0", image_size=64, strides=(4,))
    first, second = (
        OnnxFeatures(extractor_graph(extractor).SerializeToString()).run(PIXELS) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert len(traced) == 1

    extractor.grid = Grid(64, 16, 5)
    extractor_graph(extractor)
    other = load_extractor("tf_efficientnet_lite0", image_size=64, strides=(8,))
    extractor_graph(other)
    for coarse_strides in ((8,), (4, 8)):
        both = load_extractor(
            "tf_efficientnet_lite0", image_size=64, strides=(4, 8), coarse_strides=coarse_strides
        )
        extractor_graph(both)
    assert len(traced) == 5, "another grid or another stage is another graph, of the image or of its half"


def test_a_broken_or_unwritable_cache_costs_time_only(
    traced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    extractor = load_extractor("tf_efficientnet_lite0", image_size=64, strides=(4,))
    extractor_graph(extractor)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"half a graph")
    extractor_graph(extractor)
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    extractor_graph(extractor)
    assert len(traced) == 3
