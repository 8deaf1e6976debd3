"""The autoencoder whose reconstruction error is an energy. It is what DxMI trains."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from energyad.energy.latent_energy import LatentEnergy, LatentEnergySizes

MAGNITUDE_FLOOR = 2.0
"""Added to a latent's mean square before dividing by it; good latents have a mean square of one."""


class Affine(nn.Linear):
    """A linear layer whose weights may also differ from image to image.

    `CategoryMixture` gives each image of a batch the weights of its category: [b out in] and [b 1 out].
    """

    def forward(self, z: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """Return the layer's output, the channel last."""
        if self.weight.ndim == 2:
            return super().forward(z)
        return z @ self.weight.mT + self.bias


class AutoencoderEnergy(LatentEnergy):
    """Energy = scaled reconstruction error of a small autoencoder, relative to the latent's own magnitude.

    E(z) = scale · mean_k (z − decode(encode(z)))_k² / (mean_k z_k² + 2). An autoencoder's error grows with the size
    of its input, and strong patterns of good parts are no defects; Yoon et al. (arXiv 2502.13280, sec. 5) meet the
    same by putting latents on a sphere. The quotient also bounds the energy of points far from everything. The
    bottleneck keeps the energy from being low everywhere even before any negative sample is seen.

    Args:
        latent_dim: Length k of a latent.
        width: Units of the hidden layer, in the encoder and in the decoder.
        bottleneck: Length of the code between them.
        generator: Source of the initial weights.
    """

    def __init__(
        self, latent_dim: int, *, width: int, bottleneck: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.width, self.bottleneck = width, bottleneck
        sizes = [latent_dim, width, bottleneck]
        self.encoder = _mlp(sizes)
        self.decoder = _mlp(sizes[::-1])
        self.log_scale = nn.Parameter(torch.zeros(()))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                init_uniform(layer, generator=generator)

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Return the energies of latents, the latent axis last."""
        error = (z - self.reconstruct(z)).square().mean(dim=-1)
        return self.log_scale.exp() * error / (z.square().mean(dim=-1) + MAGNITUDE_FLOOR)

    def reconstruct(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
        """Return the autoencoder's output."""
        return self.decoder(self.encoder(z))

    def sizes(self) -> LatentEnergySizes:
        """Return the network's sizes."""
        return LatentEnergySizes(width=self.width, bottleneck=self.bottleneck)


def init_uniform(layer: nn.Linear, *, generator: torch.Generator | None) -> None:
    """Draw a layer's weights and biases from U(−n^-½, n^-½), n the number of its inputs."""
    bound = layer.in_features**-0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [Affine(n_in, n_out), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
