"""The scorer in PyTorch: on any device torch knows, and the reference that the others are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from energyad.runtimes import RawScores
from energyad.runtimes.plan import Lanes, Plan, available_threads

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from energyad.scorer import Scorer

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
        self.plan = Plan(batch_size, lanes=1, threads=allowed, allowed=allowed)
        self.scorer = scorer.eval().to(self.device).to(memory_format=torch.channels_last)
        self._lanes = Lanes(self._infer, self.plan)

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch."""
        return self._lanes.run(pixels)

    def replan(self, plan: Plan) -> EagerRuntime:
        """The same: PyTorch shares its own threads out."""
        return self

    @torch.inference_mode()
    def _infer(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            scores = self.scorer(torch.from_numpy(pixels).to(self.device))
        return RawScores(*(each.cpu().numpy() for each in scores if each is not None))
