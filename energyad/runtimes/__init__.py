"""The scorer graph on different engines, behind one interface that speaks numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32, UInt8


class RawScores(NamedTuple):
    """What the graph gives for a batch; energies, not yet compared with a threshold."""

    score: Float32[np.ndarray, " b"]
    heatmap: Float32[np.ndarray, "b h w"]


class Runtime(Protocol):
    """One engine with one model loaded. Calls may come from several threads."""

    name: str

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch of RGB bytes at the model's input size."""
        ...
