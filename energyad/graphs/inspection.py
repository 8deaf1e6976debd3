"""Refuse ONNX graphs that read other files, loop or ask for unbounded memory, before an engine sees them.

Engines read tensors kept outside a graph from the working directory, some of them from anywhere, and no hash covers
those files. The reader below walks the protobuf's wire format itself: scoring has no `onnx` package, and parsing a
hostile file with one would already allocate what it asks for. Its work is bounded by `MAX_FIELDS`, and tensors' data
are looked at in place, for values that are no numbers: engines differ in what they make of those.

Field numbers: onnx.proto3 of ONNX 1.17, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from energyad.errors import ModelError

MAX_GRAPH_BYTES: Final = 2**31 - 1
"""No protobuf message may be longer."""
MAX_FIELDS: Final = 2_000_000
"""Fields of the wire format in one graph; the export of a large transformer has about a hundred thousand."""
MAX_ELEMENTS: Final = 2**28
"""Elements of one tensor: 1 GiB of float32, several times the activations of the largest image."""

REFUSED_OPERATORS: Final = frozenset({"If", "Loop", "Scan", "SequenceMap", "EPContext"})
"""Operators with graphs inside or files beside them; the export writes none."""
_SIZED_BY_INPUT: Final = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators whose output is as large as one of their inputs says, and the position of that input."""
_GROWN_BY_INPUT: Final = {"Pad": (1,), "Resize": (3,), "Range": (0, 1, 2), "OneHot": (1,)}
"""Operators that each number of these inputs may make large by itself."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_INT32, _INT64 = 6, 7
_FLOATS: Final = {1: "<f4", 10: "<f2", 11: "<f8"}
_MAX_SHAPE_RANK: Final = 16


def check_graph(graph: bytes, *, name: str = "the graph") -> None:
    """Refuse a graph that no export of this package looks like.

    Refused are tensors kept outside the file, sparse tensors, graphs inside operators (`If`, `Loop`, `Scan`),
    functions, training graphs, weights that are no numbers (NaN), tensors of more than `MAX_ELEMENTS` elements,
    whether stored or made from a constant shape, and what is no ONNX at all. Sizes that an operator computes while it
    runs are not known here.

    Args:
        graph: The bytes of an ONNX file.
        name: How the error names it.

    Raises:
        ModelError: The graph is refused.

    Example:
        >>> check_graph(Path("scorer.onnx").read_bytes(), name="scorer.onnx")
    """
    try:
        _Inspection(graph).check()
    except _Refused as refused:
        raise ModelError(f"{name}: refused: {refused}; fit the model again or restore it") from None


class _Refused(Exception):
    """Why a graph is refused."""


@dataclass
class _Node:
    operator: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constant: tuple[int, ...] | None = None


class _Inspection:
    """One walk over one graph."""

    def __init__(self, graph: bytes) -> None:
        self._bytes = graph
        self._fields_left = MAX_FIELDS
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._nodes: list[_Node] = []

    def check(self) -> None:
        """Raise _Refused where the graph is not to be opened."""
        if len(self._bytes) > MAX_GRAPH_BYTES:
            raise _Refused(f"{len(self._bytes):,} bytes are more than an ONNX file may have")
        if self._bytes[4:8] == b"ORTM":
            raise _Refused("it is in ONNX Runtime's own format, not in ONNX")
        num_graphs = 0
        for number, kind, start, end in self._fields(0, len(self._bytes)):
            if number == 7 and kind == _BYTES:
                num_graphs += 1
                self._graph(start, end)
            elif number in (20, 25):
                raise _Refused("it holds functions or a training graph")
        if num_graphs != 1:
            raise _Refused(f"it holds {num_graphs} graphs, not one")
        for node in self._nodes:
            self._check_sizes(node)

    def _graph(self, start: int, end: int) -> None:
        for number, kind, first, last in self._fields(start, end):
            if number == 1 and kind == _BYTES:
                self._nodes.append(self._node(first, last))
            elif number == 5 and kind == _BYTES:
                tensor, values = self._tensor(first, last)
                if values is not None:
                    self._shapes[tensor] = values
            elif number == 15:
                raise _Refused("it holds a sparse tensor")

    def _node(self, start: int, end: int) -> _Node:
        node = _Node()
        for number, kind, first, last in self._fields(start, end):
            if kind != _BYTES:
                continue
            if number == 1:
                node.inputs.append(self._text(first, last))
            elif number == 2:
                node.outputs.append(self._text(first, last))
            elif number == 4:
                node.operator = self._text(first, last)
                if node.operator in REFUSED_OPERATORS:
                    raise _Refused(f"operator {node.operator} is not one that a fit writes")
            elif number == 5:
                values = self._attribute(first, last)
                node.constant = node.constant if values is None else values
        if node.operator == "Constant" and node.constant is not None:
            self._shapes.update(dict.fromkeys(node.outputs, node.constant))
        return node

    def _attribute(self, start: int, end: int) -> tuple[int, ...] | None:
        """Return the whole numbers that the attribute holds as a tensor, where they are few."""
        values = None
        for number, _, first, last in self._fields(start, end):
            if number in (5, 10):
                values = self._tensor(first, last)[1]
            elif number in (6, 11):
                raise _Refused("it holds a graph inside an operator")
            elif number in (22, 23):
                raise _Refused("it holds a sparse tensor")
        return values

    def _tensor(self, start: int, end: int) -> tuple[str, tuple[int, ...] | None]:
        """Return a tensor's name, and its values where they are few whole numbers."""
        name, dims, kind_of_data, numbers = "", [], 0, []
        places: list[tuple[int, int, int]] = []
        for number, kind, first, last in self._fields(start, end):
            if number == 13 or (number == 14 and (kind != _VARINT or self._number(first) != 0)):
                raise _Refused("it keeps a tensor outside the file")
            if number == 1:
                dims += self._numbers(kind, first, last)
            elif number == 2 and kind == _VARINT:
                kind_of_data = self._number(first)
            elif number in (5, 7):
                numbers += self._numbers(kind, first, last)
            elif number == 8 and kind == _BYTES:
                name = self._text(first, last)
            elif number in (4, 9, 10) and kind == _BYTES:
                places.append((number, first, last))
        self._check_numbers(name, kind_of_data, places)
        short = [field for field in places if field[2] - field[1] <= 8 * _MAX_SHAPE_RANK]
        data = b"".join(self._bytes[first:last] for _, first, last in short)
        if any(size < 0 for size in dims) or math.prod(dims) > MAX_ELEMENTS:
            raise _Refused(f"tensor '{name[:80]}' has more than {MAX_ELEMENTS:,} elements")
        width = {_INT32: 4, _INT64: 8}.get(kind_of_data)
        if width is None:
            return name, None
        stored = [
            int.from_bytes(data[offset : offset + width], "little", signed=True)
            for offset in range(0, len(data), width)
        ]
        return name, tuple(numbers or stored)

    def _check_numbers(self, name: str, kind_of_data: int, places: Sequence[tuple[int, int, int]]) -> None:
        """Refuse a tensor that holds NaN, without a copy of it. places: fields, and where their values are."""
        for number, start, end in places:
            dtype = {4: "<f4", 10: "<f8"}.get(number) or _FLOATS.get(kind_of_data)
            count = 0 if dtype is None else (end - start) // np.dtype(dtype).itemsize
            if count and np.isnan(np.frombuffer(self._bytes, dtype, count, start).min()):
                raise _Refused(f"tensor '{name[:80]}' holds what is no number")

    def _check_sizes(self, node: _Node) -> None:
        """Refuse an operator that a constant makes larger than `MAX_ELEMENTS`."""
        asked = 0
        if node.operator in _SIZED_BY_INPUT:
            values = self._constant(node, _SIZED_BY_INPUT[node.operator])
            asked = math.prod(max(1, abs(value)) for value in values)
        elif node.operator in _GROWN_BY_INPUT:
            inputs = _GROWN_BY_INPUT[node.operator]
            asked = max((abs(value) for index in inputs for value in self._constant(node, index)), default=0)
        if asked > MAX_ELEMENTS:
            raise _Refused(f"operator {node.operator} makes a tensor of more than {MAX_ELEMENTS:,} elements")

    def _constant(self, node: _Node, index: int) -> Sequence[int]:
        return self._shapes.get(node.inputs[index], ()) if index < len(node.inputs) else ()

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, and where the value starts and ends, of each field of a message."""
        offset = start
        while offset < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise _Refused(f"it has more than {MAX_FIELDS:,} fields")
            key, offset = self._varint(offset, end)
            number, kind = key >> 3, key & 7
            first = offset
            if kind == _VARINT:
                _, offset = self._varint(offset, end)
            elif kind == _BYTES:
                length, first = self._varint(offset, end)
                offset = first + length
            elif kind in (_FIXED32, _FIXED64):
                offset += 4 if kind == _FIXED32 else 8
            else:
                raise _Refused("it is no ONNX file, or a damaged one")
            if offset > end or number == 0:
                raise _Refused("it is no ONNX file, or a damaged one")
            yield number, kind, first, offset

    def _varint(self, offset: int, end: int) -> tuple[int, int]:
        """Return the number that starts at a place, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if offset >= end:
                break
            byte = self._bytes[offset]
            offset += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, offset
        raise _Refused("it is no ONNX file, or a damaged one")

    def _number(self, offset: int) -> int:
        value, _ = self._varint(offset, len(self._bytes))
        return value - 2**64 if value >= 2**63 else value

    def _numbers(self, kind: int, start: int, end: int) -> list[int]:
        """Return the numbers of a repeated field, packed or not; of long ones the first few."""
        if kind == _VARINT:
            return [self._number(start)]
        values: list[int] = []
        while kind == _BYTES and start < end and len(values) < _MAX_SHAPE_RANK:
            value, start = self._varint(start, end)
            values.append(value - 2**64 if value >= 2**63 else value)
        return values

    def _text(self, start: int, end: int) -> str:
        return self._bytes[start:end].decode("utf-8", errors="replace")
