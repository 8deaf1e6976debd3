"""The same graph, laid out so that engines need fewer passes over memory. No score changes beyond rounding.

A head is written channel last, as the mathematics reads; convolutional engines keep channels second and fuse bias,
activation and sums into their 1 × 1 convolutions. `channels_second` makes matrix products over the last axis such
convolutions, for any energy made of products, elementwise functions and reductions; what it does not know, it leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import onnx
from onnx import NodeProto, helper

from energyad.graphs.editor import GraphEditor, attribute

ELEMENTWISE: Final = frozenset((
    "Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
    "Log", "Max", "Min", "Mul", "Neg", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Swish", "Tanh",
))  # fmt: skip
REDUCTIONS: Final = frozenset((
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum",
    "ReduceSumSquare",
))  # fmt: skip
CHANNEL_LAST: Final = [0, 2, 3, 1]


class _UnknownLayoutError(Exception):
    """The graph holds something between the latents and their energies that cannot be moved."""


def channels_second(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move the channels of a head's values from the last axis to the second.

    Args:
        model: Graph of a head: features [batch c g g] → score, heatmap.

    Returns:
        The rewritten graph, its results equal up to rounding; the same graph where a node is not known to allow that.
    """
    try:
        return _Mover(model).moved_model()
    except _UnknownLayoutError:
        return model


def fold_scale(model: onnx.ModelProto) -> onnx.ModelProto:
    """Multiply the first convolution's weights where pixels are multiplied, x·s − o = s·(x − o/s), to save a pass.

    Args:
        model: Graph of a backbone: pixels → features.

    Returns:
        The graph without the product; unchanged where a shift and an ungrouped convolution do not follow it.
    """
    graph = GraphEditor(model)
    for scale in [node for node in graph.nodes if node.op_type == "Mul"]:
        shift = graph.only_user(scale.output[0], "Sub")
        conv = graph.only_user(shift.output[0], "Conv") if shift is not None else None
        if (
            shift is None
            or conv is None
            or not {scale.input[1], shift.input[1], conv.input[1]} <= graph.constants.keys()
        ):
            continue
        factor, offset = graph.constants[scale.input[1]], graph.constants[shift.input[1]]
        per_channel = factor.ndim == 4 and factor.shape == offset.shape and factor.size == factor.shape[1]
        weight = graph.constants[conv.input[1]]
        if not per_channel or weight.shape[1] != factor.size:  # a grouped convolution
            continue
        shift.input[0] = scale.input[0]
        shift.input[1] = graph.constant(offset / factor, shift.input[1])
        conv.input[1] = graph.constant(weight * factor, conv.input[1])
        graph.nodes.remove(scale)
    return graph.model()


class _Mover(GraphEditor):
    """Walks from the transposed features to the energies. `moved`: channels of each value that is channels second."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        self.moved: dict[str, int] = {}
        self.aliases: dict[str, str] = {}
        self.transposed: set[str] = set()

    def moved_model(self) -> onnx.ModelProto:
        nodes = self.nodes
        self.nodes = [new for node in nodes for new in self._move(node)]
        self._differences_to_sums()
        if any(output.name in self.moved for output in self.original.graph.output):
            raise _UnknownLayoutError
        return self.model()

    def _move(self, node: NodeProto) -> Iterable[NodeProto]:
        source = self.original.graph.input[0]
        if node.op_type == "Transpose" and node.input[0] == source.name:
            if list(attribute(node, "perm")) != CHANNEL_LAST:
                raise _UnknownLayoutError
            self.aliases[node.output[0]] = source.name
            self.moved[source.name] = source.type.tensor_type.shape.dim[1].dim_value
            return []
        node.input[:] = [self.aliases.get(name, name) for name in node.input]
        if not any(name in self.moved for name in node.input):
            return [node]
        compared = node.op_type == "MatMul" and self.only_user(node.output[0], "ReduceMin") is not None
        if compared or node.op_type == "Reshape":
            return self._channel_last(node)
        if node.op_type in REDUCTIONS:
            return self._reduced(node)
        moves = {
            "MatMul": self._as_convolution,
            "Squeeze": self._squeezed,
            "Concat": self._concatenated,
            "Slice": self._sliced,
        } | dict.fromkeys(ELEMENTWISE, self._elementwise)
        if node.op_type not in moves:
            raise _UnknownLayoutError
        return [moves[node.op_type](node)]

    def _channel_last(self, node: NodeProto) -> Iterable[NodeProto]:
        """Channel last again: to lay patches in a row, and where of products only the least is asked for."""
        if node.input[0] not in self.moved or node.input[1] in self.moved:
            raise _UnknownLayoutError
        source, transposed = node.input[0], f"{node.input[0]}.transposed"
        node.input[0] = transposed
        if source in self.transposed:  # several such products may be of the same values
            return [node]
        self.transposed.add(source)
        return [helper.make_node("Transpose", [source], [transposed], perm=CHANNEL_LAST), node]

    def _as_convolution(self, node: NodeProto) -> NodeProto:
        source, weight = node.input[0], self.constants.get(node.input[1])
        if source not in self.moved or weight is None or weight.ndim != 2:
            raise _UnknownLayoutError
        self.moved[node.output[0]] = weight.shape[1]
        kernel = self.constant(weight.T[:, :, None, None], node.input[1])
        return helper.make_node("Conv", [source, kernel], list(node.output), node.name, kernel_shape=[1, 1])

    def _concatenated(self, node: NodeProto) -> NodeProto:
        if attribute(node, "axis") not in (-1, 3) or not all(name in self.moved for name in node.input):
            raise _UnknownLayoutError
        self.moved[node.output[0]] = sum(self.moved[name] for name in node.input)
        return helper.make_node("Concat", list(node.input), list(node.output), node.name, axis=1)

    def _squeezed(self, node: NodeProto) -> NodeProto:
        self._move_axis(node)
        return node

    def _move_axis(self, node: NodeProto) -> None:
        """Let a node that worked along the last axis work along the second."""
        axes = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        if axes is None or axes.tolist() not in ([-1], [3]):
            raise _UnknownLayoutError
        node.input[1] = self.constant(np.array([1], np.int64), node.input[1])

    def _sliced(self, node: NodeProto) -> NodeProto:
        start, end, axis, step = (self.constants.get(name) for name in [*node.input[1:], *[""] * 4][:4])
        if start is None or end is None or axis is None or axis.tolist() not in ([-1], [3]):
            raise _UnknownLayoutError
        if step is not None and step.tolist() != [1]:
            raise _UnknownLayoutError
        width = self.moved[node.input[0]]
        self.moved[node.output[0]] = len(range(width)[int(start[0]) : int(end[0])])
        node.input[3] = self.constant(np.array([1], np.int64), node.input[3])
        return node

    def _elementwise(self, node: NodeProto) -> NodeProto:
        for index, name in enumerate(node.input):
            value = self.constants.get(name)
            if name in self.moved or not name or (value is not None and value.size == 1 and value.ndim <= 1):
                continue
            if value is None or value.ndim != 1:
                raise _UnknownLayoutError
            node.input[index] = self.constant(value[:, None, None], name)
        self.moved[node.output[0]] = max(self.moved.get(name, 1) for name in node.input)
        exponent = self.constants.get(node.input[-1])
        if node.op_type == "Pow" and exponent is not None and exponent.size == 1 and float(exponent) == 2:
            return helper.make_node("Mul", [node.input[0]] * 2, list(node.output), node.name)
        return node

    def _reduced(self, node: NodeProto) -> Iterable[NodeProto]:
        self._move_axis(node)
        source, keep = node.input[0], attribute(node, "keepdims", 1)
        # A convolution reads the channels where they are; a mean has them moved first, and a sum adds them in an order
        # that depends on the batch.
        if node.op_type in ("ReduceMean", "ReduceSum"):
            count = self.moved[source]
            value = 1 / count if node.op_type == "ReduceMean" else 1.0
            share = self.constant(np.full((1, count, 1, 1), value, np.float32), f"{node.output[0]}.share")
            wide = f"{node.output[0]}.wide"
            new = [helper.make_node("Conv", [source, share], [wide], kernel_shape=[1, 1])]
            if keep:
                new[0].output[0] = node.output[0]
            else:
                new.append(helper.make_node("Squeeze", [wide, node.input[1]], list(node.output), node.name))
        else:
            new = [node]
        if keep:
            self.moved[node.output[0]] = 1
        return new

    def _differences_to_sums(self) -> None:
        """z − (W·h + b) = z + ((−W)·h − b): convolutions add what they are given as they write their results."""
        makers = {node.output[0]: node for node in self.nodes}
        for difference in [node for node in self.nodes if node.op_type == "Sub"]:
            shift = makers.get(difference.input[1])
            conv = makers.get(shift.input[0]) if shift is not None and shift.op_type == "Add" else None
            if (
                shift is None
                or conv is None
                or conv.op_type != "Conv"
                or shift.input[1] not in self.constants
            ):
                continue
            if (
                self.only_user(conv.output[0], "Add") is None
                or self.only_user(shift.output[0], "Sub") is None
            ):
                continue
            conv.input[1] = self.constant(-self.constants[conv.input[1]], conv.input[1])
            shift.input[1] = self.constant(-self.constants[shift.input[1]], shift.input[1])
            difference.op_type = "Add"
