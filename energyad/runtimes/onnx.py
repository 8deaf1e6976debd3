"""ONNX Runtime: several times faster than eager PyTorch on a CPU, and loads in a fraction of a second without torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime

from energyad.errors import ModelError
from energyad.runtimes import RawScores

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32, UInt8


def open_session(model: Path | bytes, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """A CPU session. threads: 0 lets ONNX Runtime take all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait would take the cores that decode the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions derive from nothing more precise
        where = model if isinstance(model, Path) else "the exported graph"
        raise ModelError(f"{where}: ONNX Runtime cannot load it ({error}); fit the model again") from error


class OnnxFeatures:
    """The frozen backbone alone, for fitting."""

    def __init__(self, model: Path | bytes, *, threads: int = 0) -> None:
        self.session = open_session(model, threads=threads)

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> Float32[np.ndarray, "b c g g"]:
        """Patch features of a batch."""
        return self.session.run(["features"], {"pixels": pixels})[0]


class OnnxRuntime:
    """The whole scorer."""

    name = "onnxruntime"

    def __init__(self, model: Path | bytes, *, threads: int = 0) -> None:
        self.session = open_session(model, threads=threads)

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch."""
        return RawScores(*self.session.run(["score", "heatmap"], {"pixels": pixels}))
