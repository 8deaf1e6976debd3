"""Traced graphs, kept between fits and lessons: tracing takes seconds, and modules of one structure have one trace.

Weights do not shape a trace. What is kept has none: each module's own are put in.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import nn

from energyad.energy.reranking import Reranker
from energyad.errors import DataError
from energyad.files import atomic_write, cache_folder

ROOMS: Final = ("energy", "features", "graphs", "images", "scoring")
"""Subpackages with all code that shapes a trace."""
PACKAGES: Final = ("torch", "onnx", "onnx-ir", "onnxscript")
"""Which trace and hold it."""


def traced(module: nn.Module, example: torch.Tensor, trace: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """Return the graph of a module, traced or from the cache, with the module's weights.

    A cache that cannot be read or written costs time only.

    Args:
        module: In its final mode. Its tensors are the graph's initialisers, by their names.
        example: The input that it is traced with.
        trace: Traces it, without changing the graph further.
    """
    path = cache_folder() / f"{_key(module, example)}.onnx"
    with contextlib.suppress(OSError, DecodeError, KeyError):
        return _with_weights(onnx.load(path), module)
    graph = trace()
    with contextlib.suppress(DataError):
        atomic_write(path, _without_weights(graph, module).SerializeToString())
    return graph


def structure(module: nn.Module) -> str:
    """Return all that shapes a module's trace, that is, everything but the values of its parameters and buffers."""
    return "\n".join(line for name, part in module.named_modules() for line in _lines(name, part))


def _lines(name: str, part: nn.Module) -> Iterator[str]:
    yield f"{name}: {type(part).__module__}.{type(part).__qualname__}"
    free = part.free_columns if isinstance(part, Reranker) else ()
    for key, value in sorted(vars(part).items()):
        if key in ("_parameters", "_buffers"):
            yield from (f"{k} {_shape(v, is_free=k in free)}" for k, v in value.items())
        elif isinstance(value, torch.Tensor):
            yield f"{key} {hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()}"
        elif not key.startswith("_"):
            yield f"{key} {value!r}"


def _shape(tensor: torch.Tensor | None, *, is_free: bool) -> str:
    if tensor is None:
        return "None"
    shape = [*tensor.shape[:-1], "any"] if is_free else list(tensor.shape)
    return f"{shape} {tensor.dtype}"


def _key(module: nn.Module, example: torch.Tensor) -> str:
    package = Path(__file__).parents[1]
    sources = [path.read_bytes() for room in ROOMS for path in sorted((package / room).rglob("*.py"))]
    described = [
        structure(module),
        str((example.shape, example.dtype)),
        *(metadata.version(name) for name in PACKAGES),
        *(hashlib.sha256(source).hexdigest() for source in sources),
    ]
    return hashlib.sha256("|".join(described).encode()).hexdigest()[:32]


def _without_weights(graph: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    """A copy whose initialisers of the module's tensors are empty, and that knows no shape with a free size."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    tensors = _tensors(module)
    for entry in copy.graph.initializer:
        if entry.name in tensors:
            entry.CopyFrom(onnx.TensorProto(name=entry.name, data_type=entry.data_type, dims=[0]))
    free = {
        getattr(part, name).shape[-1]
        for part in module.modules()
        if isinstance(part, Reranker)
        for name in part.free_columns
    }
    shapes = [value for value in copy.graph.value_info if not free.intersection(_sizes(value))]
    del copy.graph.value_info[:]
    copy.graph.value_info.extend(shapes)
    return copy


def _sizes(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _with_weights(graph: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto:
    tensors = _tensors(module)
    for entry in graph.graph.initializer:
        if entry.name in tensors:
            entry.CopyFrom(numpy_helper.from_array(tensors[entry.name].detach().numpy(), entry.name))
    return graph


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_buffers()) | dict(module.named_parameters())
