"""Whitened projection of patch features: the space that the energy lives in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

EIGENVALUE_FLOOR = 1e-4
"""Directions with less than this share of the largest variance are scaled as if they had it, so noise stays small."""

CHUNK_SIZE = 65536
"""Patches whose products are added up at once."""


class Whitening(nn.Module):
    """Affine map of patch features to latents of zero mean and unit variance, the strongest directions only.

    Latents make patches of every backbone alike to the energy: N(0, I) is then the natural base measure of the
    sampler. Fitted on good parts alone; see `fit_whitening`.

    Args:
        num_channels: Length c of a patch's features.
        latent_dim: Length k of a latent.
    """

    mean: Float[Tensor, " c"]
    projection: Float[Tensor, "c k"]

    def __init__(self, num_channels: int, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("projection", torch.zeros(num_channels, latent_dim))

    def forward(self, features: Float[Tensor, "*b c"]) -> Float[Tensor, "*b k"]:
        """Return the latents of patch features, the channel last."""
        return (features - self.mean) @ self.projection

    def deviations(self) -> Float[Tensor, " k"]:
        """Return the features' standard deviations in the latents' directions, relative to the largest.

        A latent times its deviation is back in the units of the features. The projection holds orthonormal
        directions, each divided by its standard deviation, so the deviations are read off the columns' norms.
        """
        inverse = self.projection.norm(dim=0)
        return inverse.min() / inverse


def fit_whitening(features: Float[Tensor, "n c"], *, latent_dim: int) -> Whitening:
    """Fit a PCA whitening: principal directions of the covariance, each divided by its standard deviation.

    Args:
        features: Patches of good parts. Half precision is fine: sums are in double precision, chunk by chunk.
        latent_dim: Directions to keep; at most the number of channels.

    Returns:
        The map from features to latents.
    """
    mean, covariance = _mean_and_covariance(features)
    variances, directions = torch.linalg.eigh(covariance)
    k = min(latent_dim, features.shape[1])
    variances, directions = variances.flip(0)[:k], directions.flip(1)[:, :k]
    deviations = variances.clamp_min(EIGENVALUE_FLOOR * variances[0]).sqrt()
    whitening = Whitening(features.shape[1], k)
    whitening.mean.copy_(mean)
    whitening.projection.copy_(directions / deviations)
    return whitening


def _mean_and_covariance(
    features: Float[Tensor, "n c"],
) -> tuple[Float[Tensor, " c"], Float[Tensor, "c c"]]:
    num_channels = features.shape[1]
    total = torch.zeros(num_channels, dtype=torch.float64)
    outer = torch.zeros(num_channels, num_channels, dtype=torch.float64)
    for chunk in features.split(CHUNK_SIZE):
        chunk = chunk.float()
        total += chunk.sum(0, dtype=torch.float64)
        outer += (chunk.T @ chunk).double()
    mean = total / len(features)
    return mean, outer / len(features) - torch.outer(mean, mean)
