"""OpenVINO: Intel's compiler, on their processors about as fast as ONNX Runtime; an extra package."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from energyad.errors import ModelError
from energyad.extras import require
from energyad.graphs.inspection import check_graph
from energyad.graphs.intermediate import check_intermediate, check_intermediate_file
from energyad.runtimes.forks import keep_in_forks
from energyad.runtimes.interface import CATEGORY, INPUT, OUTPUTS, RawScores, check_names
from energyad.runtimes.plan import ConcurrentCalls, Plan, default_plan

if TYPE_CHECKING:
    from jaxtyping import UInt8


class IntermediateModel(NamedTuple):
    """OpenVINO's own format, as bytes: the graph as XML, and its weights."""

    graph: bytes
    weights: bytes


class OpenVinoRuntime:
    """The whole scorer, in float32: the plugin's own choice on newer processors is bfloat16, which moves scores."""

    name = "openvino"

    def __init__(
        self, graph: Path | bytes | IntermediateModel, *, threads: int | None = None, plan: Plan | None = None
    ) -> None:
        self.plan = plan or default_plan(threads)
        self._graph = graph
        self._compiled = compile_graph(graph, self.plan)
        self._outputs = [_name_of(port) for port in self._compiled.outputs]
        check_names([_name_of(port) for port in self._compiled.inputs], self._outputs)
        batch = self._compiled.input(0).partial_shape[0]
        self._fixed_batch = batch.get_length() if batch.is_static else None
        keep_in_forks(self)
        self._calls = ConcurrentCalls(self._infer, self.plan)

    @property
    def input_shape(self) -> tuple[int, int]:
        """Height and width of the images that the graph takes."""
        shape = self._compiled.input(0).partial_shape
        return shape[1].get_length(), shape[2].get_length()

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch."""
        return self._calls.run(pixels)

    def with_plan(self, plan: Plan) -> OpenVinoRuntime:
        """The same model under another plan."""
        return OpenVinoRuntime(self._graph, plan=plan)

    def _infer(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        size = self._fixed_batch
        if size is None or len(pixels) == size:
            return self._infer_call(pixels)
        calls = [
            self._infer_call(pixels[np.arange(start, start + size).clip(max=len(pixels) - 1)])
            for start in range(0, len(pixels), size)
        ]
        score, heatmap = (np.concatenate([call[at] for call in calls])[: len(pixels)] for at in (0, 1))
        return RawScores(score, heatmap)

    def _infer_call(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        results = self._compiled.create_infer_request().infer({"pixels": pixels}, share_inputs=True)
        return RawScores(**{name: results[index] for index, name in enumerate(self._outputs)})


def _name_of(port: Any) -> str:
    """One name of an input or output, which has several where the compiler left copies out: the one looked for."""
    names = [name for name in (INPUT, *OUTPUTS, CATEGORY) if name in port.names]
    return names[0] if names else min(port.names, default="nothing")


def as_intermediate(graph: bytes) -> IntermediateModel:
    """OpenVINO's own files of an ONNX graph, weights in full precision."""
    return intermediate_of(_package().Core().read_model(graph))


def intermediate_of(model: Any) -> IntermediateModel:
    """OpenVINO's own files of one of its models, weights in full precision."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        _package().save_model(model, path, compress_to_fp16=False)
        return IntermediateModel(path.read_bytes(), path.with_suffix(".bin").read_bytes())


def _package() -> Any:
    require("openvino", "runtime 'openvino'")
    import openvino

    # Its bindings look numpy's types up at the first array; two threads that are first wait for each other for ever.
    openvino.Tensor(np.zeros(1, np.uint8), shared_memory=True).element_type.to_dtype()
    return openvino


def compile_graph(graph: Path | bytes | IntermediateModel, plan: Plan) -> Any:
    """OpenVINO's compiled model, in float32, with a stream for each lane."""
    openvino = _package()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": plan.concurrency,
        "INFERENCE_NUM_THREADS": plan.concurrency * plan.threads,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        core = openvino.Core()
        if isinstance(graph, bytes):
            check_graph(graph, name="the exported graph")
        elif isinstance(graph, IntermediateModel):
            check_intermediate(graph.graph, num_weights=len(graph.weights), name="the imported graph")
            return core.compile_model(core.read_model(graph.graph, graph.weights), "CPU", options)
        elif graph.suffix == ".xml":
            check_intermediate_file(graph)
        return core.compile_model(core.read_model(graph), "CPU", options)
    except (RuntimeError, UnicodeDecodeError) as error:  # its messages may quote bytes that are no text
        where = graph if isinstance(graph, Path) else "the exported graph"
        reason = "bytes that are no text"
        if not isinstance(error, UnicodeDecodeError):
            reason = str(error).strip().splitlines()[-1]
        raise ModelError(f"{where}: OpenVINO cannot load it ({reason}); use --runtime onnxruntime") from error
