"""Settings of small fits: small images, small networks, few iterations."""

from __future__ import annotations

from energyad.settings import FitSettings

QUICK = FitSettings().with_values(
    {
        "features.strides": (4, 8),
        "features.coarse_strides": (),
        "input.image_size": 128,
        "augmentation.rotation": "off",
        "energy.latent_dim": 48,
        "energy.width": 64,
        "energy.bottleneck": 16,
        "energy.pretrain_steps": 300,
        "memory_bank.size": 128,
        "memory_bank.rerank_bank_size": 512,
        "synthetic_defects.per_image": 1,
        "synthetic_defects.discriminator_iterations": 100,
        "dxmi.iterations": 10,
        "dxmi.pretrain_iterations": 10,
    }
)
"""A fit of seconds that finds obvious defects."""

TINY = QUICK.with_values(
    {
        "features.backbone": "five_convolutions",
        "features.strides": FitSettings().features.strides,
        "features.coarse_strides": FitSettings().features.coarse_strides,
        "input.image_size": 64,
        "energy.latent_dim": 16,
        "energy.width": 16,
        "energy.bottleneck": 4,
        "energy.pretrain_steps": 20,
        "memory_bank.size": 64,
        "memory_bank.rerank_bank_size": 128,
        "synthetic_defects.discriminator_iterations": 20,
        "dxmi.iterations": 2,
    }
)
"""A fit of which only the parts and their shapes are looked at, of a network with drawn weights."""
