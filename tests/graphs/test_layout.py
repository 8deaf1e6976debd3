"""Laws of the graph's rewriting: another layout, the same scores, for any energy."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from energyad.energy.discriminator import Discriminator, DiscriminatorEnergy
from energyad.energy.latent_energy import LatentEnergy, MeanEnergy
from energyad.energy.memory_bank import MemoryBank, MemoryBankEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.energy.whitening import fit_whitening
from energyad.features.grids import Grid
from energyad.graphs import export, layout
from energyad.scoring.scorer import EnergyHead

CHANNELS, LATENTS = 12, 8


class Mixture(LatentEnergy):
    """Products, a reduction that keeps its axis, logsumexp and a bounded activation."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Linear(LATENTS, 5)
        self.gate = nn.Linear(LATENTS, LATENTS, bias=False)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z * torch.sigmoid(self.gate(z)) - z.mean(dim=-1, keepdim=True)
        return -torch.logsumexp(self.centres(z), dim=-1) + z.abs().amax(dim=-1)


class Autoencoder(LatentEnergy):
    """Like the energy of the package, with another activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(LATENTS, 6), nn.Linear(6, LATENTS)
        self.activation = activation

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        error = (z - self.up(self.activation(self.down(z)))).square().mean(dim=-1)
        return 3.0 * error / (z.square().mean(dim=-1) + 2.0)


class Sorted(LatentEnergy):
    """Something the rewriting knows nothing of."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.topk(3, dim=-1).values.sum(dim=-1)


DRAWN = torch.Generator().manual_seed(0)
STRETCH = torch.rand(LATENTS, generator=DRAWN) + 0.1


def prototype_energy() -> MemoryBankEnergy:
    """A memory bank of its own, in a metric that all share."""
    points, radii = torch.randn(20, LATENTS, generator=DRAWN), torch.rand(20, generator=DRAWN) + 0.5
    return MemoryBankEnergy(
        Autoencoder(nn.SiLU()), MemoryBank(points, radii), deviations=STRETCH, num_directions=5
    )


ENERGIES = {
    "relu": Autoencoder(nn.ReLU()),
    "mixture": Mixture(),
    "sorted": Sorted(),
    "prototypes": prototype_energy(),
    "discriminated": DiscriminatorEnergy(Autoencoder(nn.SiLU()), Discriminator(LATENTS, width=5)),
    "several": MeanEnergy([prototype_energy(), prototype_energy()]),
}


@functools.cache
def heads(name: str) -> tuple[EnergyHead, onnx.ModelProto]:
    """A head with that energy, and its export."""
    generator, energy = torch.Generator().manual_seed(0), ENERGIES[name]
    for parameter in energy.parameters():
        nn.init.normal_(parameter, generator=generator)
    whitening = fit_whitening(torch.rand(400, CHANNELS, generator=generator), latent_dim=LATENTS)
    head = EnergyHead(PatchEnergy(whitening, energy), grid=Grid.square(64, 8, 1), smoothing=2.0)
    head = head.eval().requires_grad_(False)
    return head, export.export_head(head, num_channels=CHANNELS)


def run(model: onnx.ModelProto, features: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["score", "heatmap"], {"features": features.numpy()})


def op_types(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.slow
@pytest.mark.parametrize("name", ENERGIES)
def test_eager_and_exported_heads_agree_for_any_energy(name: str) -> None:
    head, exported = heads(name)
    features = torch.rand(3, CHANNELS, 6, 6, generator=torch.Generator().manual_seed(1))
    for found, expected in zip(run(exported, features), head(features)[:2], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # only the upsampling's products of either energy are left, and those whose least is asked for; the unknown stays
    products, transposes = {"sorted": (5, 1), "prototypes": (5, 1), "several": (6, 1)}.get(name, (4, 0))
    assert op_types(exported).count("MatMul") == products
    assert op_types(exported).count("Transpose") == transposes


@pytest.mark.slow
def test_a_difference_from_a_product_becomes_a_sum() -> None:
    assert op_types(heads("relu")[1]).count("Sub") == 1  # the features' mean alone


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.5, -1.25])
def test_pixels_scaled_in_the_weights_give_the_same_convolution_at_the_border_too(offset: float) -> None:
    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
            self.register_buffer("scale", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
            self.register_buffer("offset", torch.tensor([offset, 1.0, 0.0]).view(1, 3, 1, 1))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.conv(pixels.permute(0, 3, 1, 2).float() * self.scale - self.offset)

    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    plain = export._export(Stem().eval(), pixels, "pixels", ["features"])
    folded = layout.fold_scale(plain)
    assert "Mul" in op_types(plain) and "Mul" not in op_types(folded)
    results = [
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"pixels": pixels.numpy()})[0]
        for model in (plain, folded)
    ]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_graph_without_such_a_beginning_is_left_alone() -> None:
    head = heads("mixture")[1]
    assert op_types(layout.fold_scale(head)) == op_types(head)
