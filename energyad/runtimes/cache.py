"""Exported backbones, kept between fits: tracing one takes seconds and gives the same graph every time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError

from energyad.errors import DataError
from energyad.features import FeatureExtractor
from energyad.files import cache_folder, write_whole
from energyad.runtimes import export

_SOURCES = [
    Path(__file__).parents[1] / name
    for name in ("grids.py", "features.py", "runtimes/export.py", "runtimes/layout.py")
]


def extractor_graph(extractor: FeatureExtractor) -> onnx.ModelProto:
    """The extractor's graph, traced or from the cache. A cache that cannot be read or written costs time only."""
    path = cache_folder() / f"{_key(extractor)}.onnx"
    with contextlib.suppress(OSError, DecodeError, onnx.checker.ValidationError):
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return model
    model = export.export_extractor(extractor)
    with contextlib.suppress(DataError):
        write_whole(path, model.SerializeToString())
    return model


def _key(extractor: FeatureExtractor) -> str:
    """Changes with anything the graph depends on: weights, structure, chosen stages, grid, normalisation, exporter."""
    weights, grid = extractor.weights, extractor.grid
    tensors = {name: tuple(tensor.shape) for name, tensor in extractor.backbone.state_dict().items()}
    stages = extractor.backbone.feature_info.get_dicts()  # type: ignore[union-attr, operator]
    sources = [path.read_text(encoding="utf-8") for path in _SOURCES]
    parts = [
        torch.__version__,
        onnx.__version__,
        vars(weights),
        vars(grid),
        vars(extractor.stages),
        str(stages),
        str(tensors),
        sources,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
