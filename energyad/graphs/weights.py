"""A module's weights and the ONNX graph that was traced from it hold the same numbers: they are stored once.

`save_beside` writes a safetensors file of those tensors alone that the graph does not hold bit for bit, such as a first
convolution that the pixels' scale was multiplied into. The file's metadata say which of the graph's initialisers the
others are. `load_beside` puts them together again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
import safetensors.torch
import torch
from jaxtyping import Shaped
from onnx import numpy_helper
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

INITIALISERS: Final = "initialisers"
"""Of the file's metadata: JSON, an initialiser's name by that of the tensor, for tensors as they are (`plain`) and for
matrices that the graph holds with rows and columns exchanged (`transposed`). One entry, since safetensors writes
several in any order and the same fit shall give the same bytes."""

_HEADER_SIZE = 8  # bytes of a safetensors file that say how long its header is


def save_beside(graph: onnx.ModelProto, tensors: Mapping[str, Tensor]) -> bytes:
    """Return a safetensors file with those tensors that the graph does not hold.

    Args:
        graph: whose initialisers are looked through, whatever their names.
        tensors: by name, of any shapes, on the CPU.

    Returns:
        The file's bytes, for `load_beside`.
    """
    names = {_key(numpy_helper.to_array(entry)): entry.name for entry in graph.graph.initializer}
    plain: dict[str, str] = {}
    transposed: dict[str, str] = {}
    remaining: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        array = tensor.numpy()
        if _key(array) in names:
            plain[name] = names[_key(array)]
        elif array.ndim == 2 and _key(array.T) in names:
            transposed[name] = names[_key(array.T)]
        else:
            remaining[name] = tensor.contiguous()
    metadata = {INITIALISERS: json.dumps({"plain": plain, "transposed": transposed})}
    return safetensors.torch.save(remaining, metadata)


def load_beside(graph: onnx.ModelProto, content: bytes) -> dict[str, Tensor]:
    """Return all tensors that `save_beside` was given.

    Args:
        graph: the one that it was given, too.
        content: what it returned.

    Raises:
        SafetensorError: where the content is no safetensors file.
        KeyError: where the graph has no initialiser of a name that the file gives, or it gives none in this form.
    """
    tensors = safetensors.torch.load(content)  # checks the header that is read next
    size = int.from_bytes(content[:_HEADER_SIZE], "little")
    metadata = json.loads(content[_HEADER_SIZE : _HEADER_SIZE + size]).get("__metadata__", {})
    entries = {entry.name: entry for entry in graph.graph.initializer}
    for key, names in _names_in(metadata.get(INITIALISERS, "{}")).items():
        for name, initialiser in names.items():
            array = numpy_helper.to_array(entries[initialiser])
            tensors[name] = torch.from_numpy((array.T if key == "transposed" else array).copy())
    return tensors


def _names_in(text: str) -> dict[str, dict[str, str]]:
    """An initialiser's name by that of the tensor, for each form. Raises KeyError where the text is something else."""
    try:
        return TypeAdapter(dict[str, dict[str, str]]).validate_json(text, strict=True)
    except ValidationError as error:
        raise KeyError(INITIALISERS) from error


def _key(array: Shaped[np.ndarray, "..."]) -> tuple[str, tuple[int, ...], bytes]:
    return array.dtype.str, array.shape, array.tobytes()
