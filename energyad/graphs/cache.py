"""Exported backbones, kept between fits: tracing one takes seconds and gives the same graph every time."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict
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

PACKAGES = ("torch", "timm", "onnx", "onnx-ir", "onnxscript")
"""Which trace, rewrite and hold it."""


def extractor_graph(extractor: FeatureExtractor) -> onnx.ModelProto:
    """Return the extractor's graph, traced or from the cache.

    A cache that cannot be read or written costs time only.

    Args:
        extractor: with its weights; what they are, the hash of their file says.
    """
    path = cache_folder() / f"{cache_key(extractor)}.onnx"
    with contextlib.suppress(OSError, DecodeError, onnx.checker.ValidationError):
        model = onnx.load(path)
        onnx.checker.check_model(model)
        return model
    model = export.export_extractor(extractor)
    with contextlib.suppress(DataError):
        atomic_write(path, model.SerializeToString())
    return model


def cache_key(extractor: FeatureExtractor) -> str:
    """Return a name that changes with anything the graph depends on.

    That is the weights' hash and shapes, normalisation, chosen stages and grid, the versions of `PACKAGES`, and the
    text of every source file in `ROOMS`.
    """
    weights, grid = extractor.weights, extractor.grid
    tensors = {name: tuple(tensor.shape) for name, tensor in extractor.backbone.state_dict().items()}
    stages = extractor.backbone.feature_info.get_dicts()  # type: ignore[union-attr, operator]
    sources = [path.read_text(encoding="utf-8") for room in ROOMS for path in sorted(room.rglob("*.py"))]
    parts = [
        [metadata.version(name) for name in PACKAGES],
        vars(weights),
        asdict(grid),
        vars(extractor.stages),
        str(stages),
        str(tensors),
        sources,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
