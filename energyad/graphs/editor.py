"""Changing an ONNX graph: its nodes, its constants, and who takes what."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from jaxtyping import Shaped
from onnx import NodeProto, helper, numpy_helper


class GraphEditor:
    """A copy of a model's nodes and constants, and the model they make."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.original = model
        self.nodes = [_copy(node) for node in model.graph.node]
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for node in [node for node in self.nodes if node.op_type == "Transpose"]:
            if node.input[0] in self.constants:  # of a weight that several products take
                transposed = self.constants[node.input[0]].transpose(attribute(node, "perm"))
                self.constants[node.output[0]] = np.ascontiguousarray(transposed)
                self.nodes.remove(node)

    def constant(self, value: Shaped[np.ndarray, "..."], like: str) -> str:
        """A new constant's name."""
        name = f"{like}.laid_out"
        while name in self.constants:
            name += "_"
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def only_user(self, name: str, op_type: str) -> NodeProto | None:
        """The one node that takes a value, if it is of that type and nothing else takes it."""
        users = [node for node in self.nodes for taken in node.input if taken == name]
        is_output = any(output.name == name for output in self.original.graph.output)
        return users[0] if len(users) == 1 and users[0].op_type == op_type and not is_output else None

    def model(self) -> onnx.ModelProto:
        """The edited model, checked; constants that nothing takes are left out."""
        taken = Counter(name for node in self.nodes for name in node.input)
        initializers = [
            numpy_helper.from_array(value, name) for name, value in self.constants.items() if taken[name]
        ]
        old = self.original.graph
        graph = helper.make_graph(self.nodes, old.name, list(old.input), list(old.output), initializers)
        model = helper.make_model(
            graph, opset_imports=list(self.original.opset_import), ir_version=self.original.ir_version
        )
        onnx.checker.check_model(model)
        return model


def _copy(node: NodeProto) -> NodeProto:
    new = NodeProto()
    new.CopyFrom(node)
    return new


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute's value, or the default where it is not given."""
    values = {stored.name: helper.get_attribute_value(stored) for stored in node.attribute}
    return values.get(name, default)
