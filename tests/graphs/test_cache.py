from __future__ import annotations

import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest

from energyad.features.extractor import load_extractor
from energyad.features.grids import Grid
from energyad.files import CACHE_VARIABLE
from energyad.graphs import cache, export
from energyad.graphs.cache import extractor_graph
from energyad.runtimes.onnx import OnnxFeatures
from tests.quick import TINY

pytestmark = pytest.mark.slow  # one real trace

NAME = TINY.features.backbone
PIXELS = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """A backbone's real trace, from the cache that all tests share."""
    return extractor_graph(load_extractor(NAME, image_size=(64, 64), strides=(8, 16)))


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
    extractor = load_extractor(NAME, image_size=(64, 64), strides=(8, 16))
    first, second = (
        OnnxFeatures(extractor_graph(extractor).SerializeToString()).run(PIXELS) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert len(traced) == 1

    extractor.grid = Grid.square(64, 16, 5)
    extractor_graph(extractor)
    other = load_extractor(NAME, image_size=(64, 64), strides=(8,))
    extractor_graph(other)
    for coarse_strides in ((8,), (4, 8)):
        both = load_extractor(NAME, image_size=(64, 64), strides=(4, 8), coarse_strides=coarse_strides)
        extractor_graph(both)
    assert len(traced) == 5, "another grid or another stage is another graph, of the image or of its half"


def test_a_broken_or_unwritable_cache_costs_time_only(
    traced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    extractor = load_extractor(NAME, image_size=(64, 64), strides=(8, 16))
    extractor_graph(extractor)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(b"half a graph")
    extractor_graph(extractor)
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    extractor_graph(extractor)
    assert len(traced) == 3


def test_the_key_changes_with_whatever_shapes_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in cache.ROOMS:
        shutil.copytree(room, tmp_path / room.name)
    monkeypatch.setattr(cache, "ROOMS", tuple(tmp_path / room.name for room in cache.ROOMS))
    extractor = load_extractor(NAME, image_size=(64, 64), strides=(8, 16))
    keys = [cache.cache_key(extractor)]
    assert cache.cache_key(load_extractor(NAME, image_size=(64, 64), strides=(8, 16))) == keys[0]

    extractor.weights = replace(extractor.weights, sha256="0" * 64)
    keys.append(cache.cache_key(extractor))
    extractor.weights = replace(extractor.weights, mean=(0.4, 0.5, 0.5))
    keys.append(cache.cache_key(extractor))
    extractor.grid = Grid.square(64, 16, 5)
    keys.append(cache.cache_key(extractor))
    for source in sorted(tmp_path.rglob("*.py")):
        source.write_text(source.read_text() + "\n")
        keys.append(cache.cache_key(extractor))
    (tmp_path / "graphs" / "deeper").mkdir()
    (tmp_path / "graphs" / "deeper" / "new.py").touch()
    keys.append(cache.cache_key(extractor))
    version = metadata.version
    for package in cache.PACKAGES:
        with monkeypatch.context() as patch:
            patch.setattr(
                metadata, "version", lambda name, changed=package: version(name) + "1" * (name == changed)
            )
            keys.append(cache.cache_key(extractor))
    assert len(set(keys)) == len(keys) > 15
