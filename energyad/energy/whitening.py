"""Whitened projection of patch features: the space the energy lives in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

EIGENVALUE_FLOOR = 1e-4
"""Directions with less than this share of the largest variance are scaled as if they had it, so noise stays small."""


class Whitening(nn.Module):
    """Affine map of patch features to latents of zero mean and unit variance, the strongest directions only.

    Latents make patches of every backbone look alike to the energy: N(0, I) is then the natural base measure of
    the sampler. Fitted on good parts alone.
    """

    mean: Float[Tensor, " c"]
    projection: Float[Tensor, "c k"]

    def __init__(self, num_channels: int, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("projection", torch.zeros(num_channels, latent_dim))

    def forward(self, features: Float[Tensor, "*b c"]) -> Float[Tensor, "*b k"]:
        """Latents of patch features, the channel last."""
        return (features - self.mean) @ self.projection

    def deviations(self) -> Float[Tensor, " k"]:
        """Standard deviations of the features in the directions of the latents, the strongest as 1.

        The projection holds orthonormal directions, each divided by its own.
        """
        inverse = self.projection.norm(dim=0)
        return inverse.min() / inverse


def fit_whitening(features: Float[Tensor, "n c"], *, latent_dim: int) -> Whitening:
    """Principal directions of the features' covariance, each divided by its standard deviation (PCA whitening).

    features: patches of good parts; accumulated in double precision in chunks, so half-precision input is fine.
    latent_dim is cut to the number of channels.
    """
    num_channels = features.shape[1]
    total, outer = (
        torch.zeros(num_channels, dtype=torch.float64),
        torch.zeros(num_channels, num_channels, dtype=torch.float64),
    )
    for chunk in features.split(65536):
        chunk = chunk.float()
        total += chunk.sum(0, dtype=torch.float64)
        outer += (chunk.T @ chunk).double()
    mean = total / len(features)
    covariance = outer / len(features) - torch.outer(mean, mean)
    variances, directions = torch.linalg.eigh(covariance)
    k = min(latent_dim, num_channels)
    variances, directions = variances.flip(0)[:k], directions.flip(1)[:, :k]
    deviations = variances.clamp_min(EIGENVALUE_FLOOR * variances[0]).sqrt()
    whitening = Whitening(num_channels, k)
    whitening.mean.copy_(mean)
    whitening.projection.copy_(directions / deviations)
    return whitening
