"""Laws of weights that a graph holds too: stored once, they come back bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper

from energyad.graphs.weights import INITIALISERS, load_beside, save_beside

DRAWN = torch.Generator().manual_seed(0)
TENSORS = {
    "conv.weight": torch.randn(4, 3, 3, 3, generator=DRAWN),
    "linear.weight": torch.randn(5, 4, generator=DRAWN),
    "scaled.weight": torch.randn(2, 3, generator=DRAWN),
    "bn.bias": torch.randn(4, generator=DRAWN),
    "bn.count": torch.tensor(7),
    "half": torch.randn(3, generator=DRAWN).half(),
}


def graph_of(**arrays: np.ndarray) -> onnx.ModelProto:
    entries = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    return helper.make_model(helper.make_graph([node], "g", [value], [output], entries))


@pytest.fixture
def graph() -> onnx.ModelProto:
    """Of all but a count, one of them multiplied into something, one turned, under names of its own."""
    return graph_of(
        tile_conv=TENSORS["conv.weight"].numpy(),
        val_3=TENSORS["linear.weight"].numpy().T,
        scaled=2 * TENSORS["scaled.weight"].numpy(),
        bias=TENSORS["bn.bias"].numpy(),
        half=TENSORS["half"].numpy(),
    )


def test_all_tensors_come_back_bit_for_bit(graph: onnx.ModelProto) -> None:
    loaded = load_beside(graph, save_beside(graph, TENSORS))
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_what_the_graph_holds_is_not_written_again(graph: onnx.ModelProto) -> None:
    assert safetensors.torch.load(save_beside(graph, TENSORS)).keys() == {"scaled.weight", "bn.count"}


def test_a_graph_without_an_initialiser_is_an_error(graph: onnx.ModelProto) -> None:
    content = save_beside(graph, TENSORS)
    with pytest.raises(KeyError, match="tile_conv"):
        load_beside(graph_of(bias=TENSORS["bn.bias"].numpy()), content)


@pytest.mark.parametrize(
    "names", ["[]", "3", "{", '{"plain": ["a"]}', '{"plain": {"a": 1}}', '{"plain": {"a": ["b"]}}', "null"]
)
def test_names_of_weights_in_another_form_are_an_error_of_one_kind(
    graph: onnx.ModelProto, names: str
) -> None:
    content = safetensors.torch.save({"a": torch.zeros(1)}, {INITIALISERS: names})
    with pytest.raises(KeyError):
        load_beside(graph, content)
