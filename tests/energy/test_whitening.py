from __future__ import annotations

import pytest
import torch

from energyad.energy.whitening import fit_whitening


@pytest.fixture
def skewed() -> torch.Tensor:
    """Correlated, off-centre points whose directions differ a hundredfold in spread."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(12, 12, generator=generator) * torch.logspace(0, -2, 12)[:, None]
    return torch.randn(20000, 12, generator=generator) @ mixing + 5 * torch.randn(12, generator=generator)


def test_latents_have_zero_mean_and_unit_covariance(skewed: torch.Tensor) -> None:
    z = fit_whitening(skewed, latent_dim=6)(skewed)
    torch.testing.assert_close(z.mean(0), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(6), atol=1e-2, rtol=0)


def test_the_strongest_directions_are_kept(skewed: torch.Tensor) -> None:
    kept = fit_whitening(skewed, latent_dim=4)
    spread = torch.linalg.eigvalsh(torch.cov(skewed.T)).flip(0)
    scale = kept.projection.norm(dim=0).reciprocal().square()
    torch.testing.assert_close(scale, spread[:4], rtol=1e-3, atol=0)


def test_half_precision_features_give_the_same_latents(skewed: torch.Tensor) -> None:
    exact, half = fit_whitening(skewed, latent_dim=4), fit_whitening(skewed.half(), latent_dim=4)
    torch.testing.assert_close(half(skewed).abs(), exact(skewed).abs(), atol=0.05, rtol=0.05)


def test_a_dead_channel_stays_finite() -> None:
    features = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0))
    features[:, 2] = 7.0
    whitening = fit_whitening(features, latent_dim=5)
    assert bool(whitening(features).isfinite().all())


def test_never_more_latents_than_channels() -> None:
    assert fit_whitening(torch.randn(100, 5), latent_dim=64).projection.shape == (5, 5)
