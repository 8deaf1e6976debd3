"""ONNX Runtime: several times faster than eager PyTorch on a CPU, and loads in a fraction of a second without torch."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from threading import BoundedSemaphore, Thread
from typing import TYPE_CHECKING, Final

import onnxruntime

from energyad.errors import ModelError, first_line
from energyad.graphs.inspection import check_graph
from energyad.runtimes.forks import keep_in_forks
from energyad.runtimes.interface import RawScores, check_names
from energyad.runtimes.plan import ConcurrentCalls, Plan, default_plan

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32, UInt8


LONE_CALLS: Final = 3
"""Single images, one after the other, after which a session on all threads is opened for those that follow."""


def open_session(
    model: Path | bytes, *, threads: int = 0, also: str | None = None, is_alone: bool = False
) -> onnxruntime.InferenceSession:
    """Open a CPU session of a graph that reads no other file and has no loops.

    Args:
        model: An ONNX file, or its bytes.
        threads: Of one call; 0 lets ONNX Runtime take all cores.
        also: A value that the graph computes and that is wanted as a further output.
        is_alone: Whether nothing else wants the processor while a call runs.

    Raises:
        ModelError: The graph is refused, see `energyad.graphs.inspection`, or ONNX Runtime cannot load it.
    """
    where = str(model) if isinstance(model, Path) else "the exported graph"
    graph = model.read_bytes() if isinstance(model, Path) else model
    check_graph(graph, name=where)
    if also is not None:
        graph = _with_output(graph, also)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take the cores that decode the next images, but begin sooner.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if is_alone else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")  # when a call ends
    options.add_session_config_entry("session.load_model_format", "ONNX")  # the only one that is inspected
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions derive from nothing more precise
        raise ModelError(
            f"{where}: ONNX Runtime cannot load it ({first_line(error)}); fit the model again"
        ) from error


def _with_output(graph: bytes, name: str) -> bytes:
    """A graph with a further output: protobuf merges messages that follow each other, and this is the output alone."""
    message = name.encode("ascii")
    for field in (1, 12, 7):  # ValueInfoProto.name, GraphProto.output, ModelProto.graph
        message = bytes([field << 3 | 2, len(message)]) + message
    return graph + message


class OnnxFeatures:
    """The features of patches. fingerprint: of the graph, weights included.

    Args:
        model: The frozen backbone alone, or a whole scorer.
        threads: Of all calls; 0 for all cores.
        is_scorer: Whether it is a scorer, in which features are no output.
    """

    def __init__(self, model: bytes, *, threads: int = 0, is_scorer: bool = False) -> None:
        self.plan = default_plan(threads)
        self.fingerprint = hashlib.sha256(model).hexdigest()
        also = "features" if is_scorer else None
        self._session = open_session(model, threads=self.plan.threads, also=also)
        keep_in_forks(self)
        self._free = BoundedSemaphore(self.plan.concurrency)

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> Float32[np.ndarray, "b c g1 g2"]:
        """Patch features of a batch, on one thread; as many calls as `plan.concurrency` run side by side."""
        with self._free:
            return self._session.run(["features"], {"pixels": pixels})[0]


class OnnxRuntime:
    """The whole scorer. One session serves all concurrency; threads: in all, where no plan is given.

    On a line parts often come one by one, and how long each takes matters more than how many are scored an hour. So a
    second session, which spreads one call over all threads, scores images that come alone. It is opened beside the
    first such calls; scores are the same.
    """

    name = "onnxruntime"

    def __init__(self, model: Path | bytes, *, threads: int | None = None, plan: Plan | None = None) -> None:
        self.plan = plan or default_plan(threads)
        self._model = model
        self._session = open_session(model, threads=self.plan.threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        check_names([tensor.name for tensor in inputs], [tensor.name for tensor in outputs])
        keep_in_forks(self)
        self._lone_calls, self._session_alone = 0, self._session
        # A file may be another one by the time that the second session is opened.
        has_more = isinstance(model, bytes) and self.plan.allowed > self.plan.threads
        self._calls = ConcurrentCalls(
            self._infer, self.plan, infer_alone=self._infer_alone if has_more else None
        )

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch."""
        return self._calls.run(pixels)

    def with_plan(self, plan: Plan) -> OnnxRuntime:
        """The same model under another plan."""
        return OnnxRuntime(self._model, plan=plan)

    def _infer(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        return _scores(self._session, pixels)

    def _infer_alone(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        self._lone_calls += 1  # no other call runs
        if self._lone_calls == LONE_CALLS:
            Thread(target=self._open_alone, name="energyad-session").start()
        return _scores(self._session_alone, pixels)

    def _open_alone(self) -> None:
        with contextlib.suppress(ModelError):  # for want of memory, say: the first session goes on
            self._session_alone = open_session(self._model, threads=self.plan.allowed, is_alone=True)


def _scores(session: onnxruntime.InferenceSession, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
    names = [output.name for output in session.get_outputs()]
    return RawScores(**dict(zip(names, session.run(names, {"pixels": pixels}), strict=True)))
