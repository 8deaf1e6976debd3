"""The scorer in PyTorch: on any device torch knows, and the reference that the others are compared with.

Also its head alone, behind the backbone's graph: for a fit, which asks more than one head and exports only the last.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from energyad.images.tiling import cut_pixels
from energyad.runtimes.interface import RawScores
from energyad.runtimes.plan import ConcurrentCalls, Plan, SerialExecutor, available_threads

if TYPE_CHECKING:
    from jaxtyping import UInt8

    from energyad.runtimes.onnx import OnnxFeatures
    from energyad.scoring.scorer import EnergyHead, Scorer, Scores

BATCH_SIZE = 16


class EagerRuntime:
    """Eager PyTorch in float32, channels last. device: CUDA where there is one, else the CPU.

    No autocast and no TF32: float16 moves scores by a percent and bfloat16 by up to most of their size (measured on
    screw), which no threshold bears.
    """

    name = "torch"

    def __init__(self, scorer: Scorer, *, device: str | None = None, plan: Plan | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        allowed = plan.allowed if plan is not None else available_threads()
        batch_size = max(1, BATCH_SIZE // scorer.head.tiles.count)
        self.plan = Plan(batch_size, concurrency=1, threads=allowed, allowed=allowed)
        self.scorer = scorer.eval().to(self.device).to(memory_format=torch.channels_last)
        on_card = self.device.type != "cpu"
        self._calls = ConcurrentCalls(SerialExecutor(self._infer) if on_card else self._infer, self.plan)

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch."""
        return self._calls.run(pixels)

    def with_plan(self, plan: Plan) -> EagerRuntime:
        """The same: PyTorch shares its own threads out."""
        return self

    @torch.inference_mode()
    def _infer(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            scores = self.scorer(torch.from_numpy(pixels).to(self.device))
        return _raw(scores)


class HeadRuntime:
    """The backbone on ONNX Runtime and a head in PyTorch: what the finished graph gives, before there is one.

    Tracing a head takes seconds, more than scoring the parts that set a threshold.
    """

    def __init__(self, session: OnnxFeatures, head: EnergyHead) -> None:
        self.plan = session.plan
        self.session, self.head = session, head
        self._free = Lock()  # a head of several categories lends its modules one image's weights at a time

    @torch.inference_mode()
    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch, image by image where each has many tiles."""
        tiles, tile_size = self.head.tiles, self.head.grid.image_size
        if tiles.count == 1:
            features = self.session.run(pixels)
        else:
            features = np.concatenate(
                [self.session.run(cut_pixels(image, tiles, tile_size)) for image in pixels]
            )
        with self._free:
            return _raw(self.head(torch.from_numpy(features)))


def _raw(scores: Scores) -> RawScores:
    return RawScores(*(output.cpu().numpy() for output in scores if output is not None))
