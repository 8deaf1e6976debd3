"""Laws of kept traces: each module keeps its own weights and sizes; what has another structure is traced anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.energy.memory_bank import MemoryBank
from energyad.energy.reranking import Reranker
from energyad.files import CACHE_VARIABLE
from energyad.graphs import export
from energyad.graphs.traces import structure, traced
from energyad.runtimes.onnx import open_session

K = 4
EXAMPLE = torch.zeros(2, 9, K)


class Distances(nn.Module):
    """Squared distances to a reranker's banks, times a factor that no tensor holds."""

    def __init__(self, seed: int, *, points: int, banks: int = 1, factor: float = 2.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        drawn = [
            MemoryBank(
                torch.randn(points, K, generator=generator), torch.rand(points, generator=generator) + 0.5
            )
            for _ in range(banks)
        ]
        self.reranker = Reranker.from_banks(
            drawn, deviations=torch.rand(K, generator=generator), fraction=0.5
        )
        self.factor = factor

    def forward(self, z: Float[Tensor, "b p k"]) -> Float[Tensor, "b p"]:
        return self.factor * self.reranker.squared_distance(z)


def run(graph: onnx.ModelProto) -> Float[np.ndarray, "b p"]:
    (distances,) = open_session(graph.SerializeToString()).run(None, {"z": inputs().numpy()})
    return distances


def inputs() -> Float[Tensor, "b p k"]:
    return torch.randn(3, 9, K, generator=torch.Generator().manual_seed(7))


@pytest.mark.slow
def test_modules_of_one_structure_are_traced_once_and_keep_their_own_weights_and_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    modules = [Distances(0, points=5), Distances(1, points=5), Distances(2, points=17)]
    first = export._export(modules[0], EXAMPLE, "z", ["distances"], optimize=False)
    calls = []

    def trace() -> onnx.ModelProto:
        calls.append(1)
        return first

    for module in modules:
        distances = run(traced(module.eval(), EXAMPLE, trace))
        np.testing.assert_allclose(distances, module(inputs()).numpy(), rtol=1e-4, atol=1e-5)
    assert len(calls) == 1
    (kept,) = tmp_path.glob("*.onnx")
    weights = [entry for entry in onnx.load(kept).graph.initializer if entry.name.startswith("reranker")]
    assert weights
    assert not any(entry.raw_data for entry in weights)
    kept.write_bytes(b"\xff" * 100)
    np.testing.assert_array_equal(run(traced(modules[0], EXAMPLE, trace)), run(first))
    assert len(calls) == 2


@pytest.mark.parametrize(
    "other",
    [
        Distances(0, points=5, factor=3.0),
        Distances(0, points=5, banks=2),
        nn.Sequential(Distances(0, points=5)),
    ],
    ids=["attribute", "banks", "module"],
)
def test_what_shapes_a_trace_is_in_the_structure(other: nn.Module) -> None:
    assert structure(other) != structure(Distances(0, points=5))


def test_points_of_several_banks_shape_a_trace() -> None:
    assert structure(Distances(0, points=5, banks=2)) != structure(Distances(0, points=6, banks=2))
    assert structure(Distances(0, points=5)) == structure(Distances(1, points=6))
