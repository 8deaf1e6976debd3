"""The scorer in PyTorch: on any device torch knows, and the reference that the others are compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from energyad.runtimes import RawScores

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from energyad.scorer import Scorer


class EagerRuntime:
    """Eager PyTorch in float32."""

    name = "torch"

    def __init__(self, scorer: Scorer, *, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.scorer = scorer.eval().to(self.device)

    @torch.inference_mode()
    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch."""
        scores = self.scorer(torch.from_numpy(pixels).to(self.device))
        return RawScores(scores.score.cpu().numpy(), scores.heatmap.cpu().numpy())
