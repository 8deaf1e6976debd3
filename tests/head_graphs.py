"""Graphs of heads, traced once for each structure, since tracing takes longer than the rest of a small fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxscript.optimizer
import torch
from filelock import FileLock
from onnx import numpy_helper
from torch import nn

from energyad.files import atomic_write
from energyad.graphs import export
from energyad.graphs.export import silence_logging


class TracedHeads:
    """In place of `export._export`: a structure that was traced before gets that graph, with the module's own weights.

    Weights do not shape a trace. The graph is kept as it was traced; constants are folded anew for each
    module, as the exporter does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.export = folder, export._export

    def __call__(
        self,
        module: nn.Module,
        example: torch.Tensor,
        input_name: str,
        output_names: list[str],
        *,
        multiple: int = 1,
        optimize: bool = True,
    ) -> onnx.ModelProto:
        if not optimize:  # a backbone, which the package's own cache keeps
            return self.export(
                module, example, input_name, output_names, multiple=multiple, optimize=optimize
            )
        parts = [
            structure(module),
            str((example.shape, example.dtype)),
            input_name,
            *output_names,
            str(multiple),
        ]
        path = self.folder / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.onnx"
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                traced = self.export(
                    module, example, input_name, output_names, multiple=multiple, optimize=False
                )
                atomic_write(path, traced.SerializeToString())
        model = onnx.load(path)
        tensors = dict(module.named_buffers()) | dict(module.named_parameters())
        for entry in model.graph.initializer:
            if entry.name in tensors:
                entry.CopyFrom(numpy_helper.from_array(tensors[entry.name].detach().numpy(), entry.name))
        with silence_logging():
            return onnxscript.optimizer.optimize(model)


def structure(module: nn.Module) -> str:
    """All that shapes a module's trace but the values of its tensors."""
    return "\n".join(line for name, part in module.named_modules() for line in _lines(name, part))


def _lines(name: str, part: nn.Module) -> Iterator[str]:
    yield f"{name}: {type(part).__module__}.{type(part).__qualname__}"
    for key, value in sorted(vars(part).items()):
        if key in ("_parameters", "_buffers"):
            yield from (f"{k} {None if v is None else (v.shape, v.dtype)}" for k, v in value.items())
        elif isinstance(value, torch.Tensor):
            yield f"{key} {hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()}"
        elif not key.startswith("_"):
            yield f"{key} {value!r}"
