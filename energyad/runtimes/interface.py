"""What every engine gives, and how it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from energyad.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32, Int64, UInt8

    from energyad.runtimes.plan import Plan


INPUT: Final = "pixels"
OUTPUTS: Final = ("score", "heatmap")
CATEGORY: Final = "category"


class RawScores(NamedTuple):
    """What the graph gives for a batch; energies, not yet compared with a threshold.

    category: that each image was taken for, as a number; None of a model of one.
    """

    score: Float32[np.ndarray, " b"]
    heatmap: Float32[np.ndarray, "b h w"]
    category: Int64[np.ndarray, " b"] | None = None

    def category_names(self, categories: Sequence[str]) -> list[str | None]:
        """The name of each image's category, of those that the model is for; None of a model of one."""
        if self.category is None:
            return [None] * len(self.score)
        return [categories[number] for number in self.category]


class BatchScorer(Protocol):
    """Whatever scores batches. Calls may come from several threads."""

    @property
    def plan(self) -> Plan:
        """How it uses the processor."""
        ...

    def run(self, pixels: UInt8[np.ndarray, "b h w 3"]) -> RawScores:
        """Score a batch of RGB bytes at the model's input size."""
        ...


class Runtime(BatchScorer, Protocol):
    """One engine with one model loaded."""

    name: str

    def with_plan(self, plan: Plan) -> Runtime:
        """The same model under another plan."""
        ...


def check_names(inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuse a graph that does not take one batch of pixels and give scores and heatmaps, and maybe categories.

    Args:
        inputs: The names of the graph's inputs.
        outputs: The names of its outputs.

    Raises:
        ModelError: They are others.
    """
    legal = (sorted(OUTPUTS), sorted((*OUTPUTS, CATEGORY)))
    if list(inputs) != [INPUT] or sorted(outputs) not in legal:
        present = f"{', '.join(inputs)[:80]} to {', '.join(outputs)[:80]}"
        raise ModelError(
            f"the exported graph: refused: it goes from {present}, not from {INPUT} to {' and '.join(OUTPUTS)}; "
            "fit the model again or restore it"
        )
