"""The scorer graph on different engines, behind one interface that speaks numpy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from energyad.errors import SettingsError
from energyad.extras import is_installed, require
from energyad.runtimes.interface import BatchScorer, RawScores, Runtime

if TYPE_CHECKING:
    from energyad.runtimes.plan import Plan
    from energyad.scoring.scorer import Scorer

__all__ = ["RUNTIMES", "VISIBLE_CARDS", "BatchScorer", "RawScores", "Runtime", "has_cuda", "open_runtime"]

RUNTIMES: Final = ("auto", "onnxruntime", "openvino", "torch")
VISIBLE_CARDS: Final = "CUDA_VISIBLE_DEVICES"


def open_runtime(
    name: str,
    graph: bytes,
    assemble: Callable[[], Scorer],
    *,
    threads: int | None = None,
    tiles: int = 1,
    plan: Plan | None = None,
) -> Runtime:
    """Load a model on the engine of that name (of `RUNTIMES`), under the plan kept for this machine or the default one.

    auto: PyTorch where there is a CUDA device, else ONNX Runtime. graph: ONNX; assemble: gives the module, called for
    PyTorch only. threads: all cores by default. tiles: of an image; the more, the fewer images a call. plan: instead of
    the kept or default one. Raises
    SettingsError for an unknown name, MissingExtraError for a missing package, ModelError for a bad graph.
    """
    from energyad.runtimes import tuning

    if name not in RUNTIMES:
        raise SettingsError(f"runtime '{name}': choose among {', '.join(RUNTIMES)}")
    if name == "auto":
        name = "torch" if has_cuda() else "onnxruntime"
    plan = plan or tuning.plan_for(name, graph, threads=threads, tiles=tiles)
    if name == "openvino":
        from energyad.runtimes.openvino import OpenVinoRuntime

        return OpenVinoRuntime(graph, plan=plan)
    if name == "torch":
        require("fit", "runtime 'torch'")
        import torch

        from energyad.runtimes.eager import EagerRuntime

        if threads is not None:
            torch.set_num_threads(threads)  # of the whole process: PyTorch has no other way
        return EagerRuntime(assemble(), plan=plan)
    from energyad.runtimes.onnx import OnnxRuntime

    return OnnxRuntime(graph, plan=plan)


def has_cuda() -> bool:
    """Whether PyTorch is there and can use an NVIDIA card; without a driver, or with all hidden, it is not imported."""
    if not is_installed("torch") or os.environ.get(VISIBLE_CARDS, "all").strip() in ("", "-1"):
        return False
    if not any(
        Path(path).exists()
        for path in ("/proc/driver/nvidia/version", "/dev/dxg", "C:/Windows/System32/nvcuda.dll")
    ):
        return False
    import torch

    return torch.cuda.is_available()
