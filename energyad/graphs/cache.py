"""Exported backbones, kept between fits: tracing one takes seconds and gives the same graph every time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from importlib import metadata
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from energyad import features, graphs
from energyad.errors import DataError
from energyad.features.extractor import FeatureExtractor
from energyad.files import atomic_write, cache_folder
from energyad.graphs import export

ROOMS = (Path(features.__file__).parent, Path(graphs.__file__).parent)
"""All code that shapes the graph lies in these."""

PACKAGES = ("torch", "timm", "onnx", "onnxscript")


def extractor_graph(extractor: FeatureExtractor) -> onnx.ModelProto:
    """The extractor's graph, traced or from the cache. A cache that cannot be read or written costs time only."""
    path = cache_folder() / f"{_key(extractor)}.onnx"
    with contextlib.suppress(OSError, DecodeError, onnx.checker.ValidationError):
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return model
    model = export.export_extractor(extractor)
    with contextlib.suppress(DataError):
        atomic_write(path, model.SerializeToString())
    return model


def _key(extractor: FeatureExtractor) -> str:
    """Changes with anything the graph depends on: weights, structure, chosen stages, grid, normalisation, exporter."""
    weights, grid = extractor.weights, extractor.grid
    tensors = {name: tuple(tensor.shape) for name, tensor in extractor.backbone.state_dict().items()}
    stages = extractor.backbone.feature_info.get_dicts()  # type: ignore[union-attr, operator]
    sources = [path.read_text(encoding="utf-8") for room in ROOMS for path in sorted(room.glob("*.py"))]
    parts = [
        [metadata.version(name) for name in PACKAGES],
        vars(weights),
        vars(grid),
        vars(extractor.stages),
        str(stages),
        str(tensors),
        sources,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
