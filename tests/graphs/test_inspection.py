"""Laws of opening graphs: no engine sees one that reads other files, loops, or asks for unbounded memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from energyad.errors import ModelError
from energyad.graphs import inspection
from energyad.graphs.inspection import check_graph
from energyad.model.folder import GRAPH_FILE
from energyad.runtimes import onnx as onnx_runtime
from energyad.runtimes.onnx import OnnxFeatures, OnnxRuntime, open_session
from energyad.runtimes.openvino import compile_graph
from energyad.runtimes.plan import default_plan

SECRET = np.arange(1000, dtype=np.float32)


def model_of(nodes: list[onnx.NodeProto], *initialisers: onnx.TensorProto) -> onnx.ModelProto:
    """A graph from x [n] to y [n]."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(initialisers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def outside(place: Path, name: str = "w") -> onnx.TensorProto:
    """A tensor whose values are in a file beside the graph."""
    tensor = numpy_helper.from_array(SECRET, name)
    (place / "secret.bin").write_bytes(SECRET.tobytes())
    onnx.external_data_helper.set_external_data(tensor, "secret.bin", 0, SECRET.nbytes)
    tensor.ClearField("raw_data")
    return tensor


def branch(*nodes: onnx.NodeProto, initialisers: list[onnx.TensorProto] | None = None) -> onnx.GraphProto:
    output = helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n"])
    return helper.make_graph(list(nodes), "branch", [], [output], initialisers or [])


def at_top_level(place: Path) -> onnx.ModelProto:
    return model_of([helper.make_node("Add", ["x", "w"], ["y"])], outside(place))


def in_an_attribute(place: Path) -> onnx.ModelProto:
    constant = helper.make_node("Constant", [], ["w"], value=outside(place))
    return model_of([constant, helper.make_node("Add", ["x", "w"], ["y"])])


def in_a_subgraph(place: Path) -> onnx.ModelProto:
    inside = branch(helper.make_node("Add", ["x", "w"], ["b"]), initialisers=[outside(place)])
    choice = helper.make_node("If", ["c"], ["y"], then_branch=inside, else_branch=inside)
    return model_of([choice], numpy_helper.from_array(np.array(True), "c"))


def in_a_function(place: Path) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=outside(place)),
        helper.make_node("Add", ["a", "w"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function("own", "F", ["a"], ["b"], nodes, opsets)
    model = model_of([helper.make_node("F", ["x"], ["y"], domain="own")])
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.append(function)
    return model


def in_a_sparse_tensor(place: Path) -> onnx.ModelProto:
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])])
    indices = numpy_helper.from_array(np.arange(1000, dtype=np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(outside(place), indices, [10**12]))
    return model


PLACES = [at_top_level, in_an_attribute, in_a_subgraph, in_a_function, in_a_sparse_tensor]


@pytest.mark.parametrize("make", PLACES)
def test_a_tensor_outside_the_file_is_refused_before_an_engine_opens_the_graph(
    make: Callable[[Path], onnx.ModelProto], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = make(tmp_path).SerializeToString()
    monkeypatch.chdir(tmp_path)  # where engines look

    def never(*args: object, **options: object) -> None:
        raise AssertionError("a session was opened")

    monkeypatch.setattr(onnx_runtime.onnxruntime, "InferenceSession", never)
    (tmp_path / "g.onnx").write_bytes(graph)
    for source in (graph, tmp_path / "g.onnx"):
        with pytest.raises(ModelError, match="refused"):
            open_session(source)
    for open_it in (OnnxRuntime, OnnxFeatures, lambda content: compile_graph(content, default_plan(1))):
        with pytest.raises(ModelError, match="refused"):
            open_it(graph)


def test_onnx_saves_of_a_real_model_with_external_data_are_refused(
    fitted_detector: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load_model_from_string(fitted_detector.contents[GRAPH_FILE])  # type: ignore[attr-defined]
    onnx.save_model(
        model, tmp_path / "g.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="keeps a tensor outside the file"):
        open_session((tmp_path / "g.onnx").read_bytes())


@pytest.mark.parametrize("location", ["data_location", "external_data"])
def test_either_mark_of_external_data_alone_is_enough(location: str, tmp_path: Path) -> None:
    model = at_top_level(tmp_path)
    model.graph.initializer[0].ClearField(location)
    with pytest.raises(ModelError, match="outside the file"):
        check_graph(model.SerializeToString())


def test_a_graph_given_in_two_halves_is_refused(tmp_path: Path) -> None:
    """Protobuf merges a message that comes twice; a reader of the first alone would miss the second."""
    whole = model_of([helper.make_node("Identity", ["x"], ["y"])]).SerializeToString()
    second = onnx.ModelProto(graph=at_top_level(tmp_path).graph).SerializeToString()
    merged = onnx.load_model_from_string(whole + second)
    assert merged.graph.initializer[0].external_data
    with pytest.raises(ModelError, match=r"outside the file|2 graphs"):
        check_graph(whole + second)


@pytest.mark.parametrize("operator", ["Loop", "Scan", "If"])
def test_an_operator_with_a_graph_inside_is_refused(operator: str) -> None:
    inside = branch(helper.make_node("Identity", ["x"], ["b"]))
    for name in (operator, "Harmless"):
        model = model_of([helper.make_node(name, ["x"], ["y"], body=inside)])
        with pytest.raises(ModelError, match="operator"):
            check_graph(model.SerializeToString())


def bomb(operator: str, *numbers: list[int], as_node: bool) -> bytes:
    """An operator that is asked for a tensor of a size that is written in the graph."""
    tensors = [
        numpy_helper.from_array(np.array(values, np.int64), f"n{i}") for i, values in enumerate(numbers)
    ]
    names = [f"n{i}" if values else "" for i, values in enumerate(numbers)]
    node = helper.make_node(
        operator, names if operator in ("ConstantOfShape", "Range") else ["x", *names], ["y"]
    )
    if as_node:
        constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors]
        return model_of([*constants, node]).SerializeToString()
    return model_of([node], *tensors).SerializeToString()


@pytest.mark.parametrize("as_node", [False, True])
@pytest.mark.parametrize(
    ("operator", "numbers"),
    [
        ("ConstantOfShape", [[2**14, 2**15]]),
        ("Expand", [[1, 2**29]]),
        ("Tile", [[2**30]]),
        ("Pad", [[0, 2**40]]),
        ("Resize", [[], [], [2**29]]),
        ("OneHot", [[2**29]]),
        ("Range", [[0], [2**40], [1]]),
    ],
)
def test_a_constant_size_beyond_the_bound_is_refused(
    operator: str, numbers: list[list[int]], as_node: bool
) -> None:
    with pytest.raises(ModelError, match=f"{operator} makes a tensor of more than"):
        check_graph(bomb(operator, *numbers, as_node=as_node))
    small = [[min(value, 100) for value in values] for values in numbers]
    check_graph(bomb(operator, *small, as_node=as_node))


def test_a_stored_tensor_beyond_the_bound_is_refused() -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**20, 2**20])
    with pytest.raises(ModelError, match="more than 268,435,456 elements"):
        check_graph(model_of([], tensor).SerializeToString())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("place", [0, -1])
def test_weights_that_are_no_numbers_are_refused(dtype: type, place: int) -> None:
    weights = np.linspace(-1, 1, 300).astype(dtype)
    weights[1] = -np.inf  # as masks of attention have
    check_graph(model_of([], numpy_helper.from_array(weights, "w")).SerializeToString())
    weights[place] = np.nan
    packed = helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), [300], weights)
    stored = [numpy_helper.from_array(weights, "w"), *([packed] if dtype == np.float32 else [])]
    for tensor in stored:
        with pytest.raises(ModelError, match="'w' holds what is no number"):
            check_graph(model_of([], tensor).SerializeToString())


def test_the_work_on_a_graph_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MAX_FIELDS", 10_000)
    started = perf_counter()
    with pytest.raises(ModelError, match="more than 10,000 fields"):
        check_graph(b"\x08\x01" * 50_000_000)
    assert perf_counter() - started < 5


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"ONNX" * 5, b"\x1c\0\0\0ORTM" + b"\0" * 99, b"\xff" * 99]
)
def test_what_is_no_onnx_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"^the graph: refused") as refused:
        check_graph(content)
    assert "\n" not in str(refused.value)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_graph_is_read_or_refused_and_never_hides_an_outside_tensor(place: int, byte: int) -> None:
    """What protobuf still reads with an outside tensor, the inspection refuses."""
    tensor = numpy_helper.from_array(SECRET[:4], "w")
    onnx.external_data_helper.set_external_data(tensor, "secret.bin")
    damaged = bytearray(model_of([helper.make_node("Add", ["x", "w"], ["y"])], tensor).SerializeToString())
    damaged[place % len(damaged)] = byte
    try:
        check_graph(bytes(damaged))
    except ModelError:
        return
    try:
        graph = onnx.load_model_from_string(bytes(damaged)).graph
    except Exception:
        return
    assert not any(tensor.external_data or tensor.data_location for tensor in graph.initializer)


def test_the_graph_of_a_fit_passes_in_little_time(fitted_detector: object) -> None:
    graph = fitted_detector.contents[GRAPH_FILE]  # type: ignore[attr-defined]
    started = perf_counter()
    check_graph(graph)
    assert perf_counter() - started < 2


def test_the_inspection_needs_no_onnx_package() -> None:
    program = "import sys, energyad.graphs.inspection; print('onnx' in sys.modules)"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert outcome.stdout.split() == ["False"]
