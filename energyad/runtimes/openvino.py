"""OpenVINO: Intel's compiler, on their processors about as fast as ONNX Runtime; an extra package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from energyad.errors import ModelError, SettingsError
from energyad.runtimes import RawScores
from energyad.runtimes.plan import Lanes, Plan, default_plan

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8


class OpenVinoRuntime:
    """The whole scorer, in float32: the plugin's own choice on newer processors is bfloat16, which moves scores."""

    name = "openvino"

    def __init__(self, graph: bytes, *, threads: int | None = None, plan: Plan | None = None) -> None:
        self.plan = plan or default_plan(threads)
        self._graph = graph
        self._compiled = _compile(graph, self.plan)
        self._lanes = Lanes(self._infer, self.plan)

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch."""
        return self._lanes.run(pixels)

    def replan(self, plan: Plan) -> OpenVinoRuntime:
        """The same model under another plan."""
        return OpenVinoRuntime(self._graph, plan=plan)

    def _infer(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        results = self._compiled.create_infer_request().infer({"pixels": pixels}, share_inputs=True)
        return RawScores(results["score"], results["heatmap"])


def _compile(graph: bytes, plan: Plan) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise SettingsError(
            "runtime 'openvino': the package is not installed; pip install 'energyad[openvino]'"
        ) from error
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "NUM_STREAMS": plan.lanes,
        "INFERENCE_NUM_THREADS": plan.lanes * plan.threads,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        core = openvino.Core()
        return core.compile_model(core.read_model(graph), "CPU", options)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"the exported graph: OpenVINO cannot load it ({reason}); use --runtime onnxruntime"
        ) from error
