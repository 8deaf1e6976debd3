"""The smallest model that a fit makes: for what is tried on model folders, services and fits, whatever its quality."""

from __future__ import annotations

from pathlib import Path

from energyad.data.demo import render_demo
from energyad.detector import AnomalyDetector
from energyad.settings import FitSettings

SETTINGS = FitSettings().with_values(
    {
        "input.image_size": 64,
        "augmentation.rotation": "off",
        "energy.latent_dim": 8,
        "energy.width": 16,
        "energy.bottleneck": 4,
        "energy.pretrain_steps": 20,
        "memory_bank.size": 16,
        "memory_bank.rerank_bank_size": 32,
        "synthetic_defects.per_image": 1,
        "synthetic_defects.discriminator_iterations": 10,
        "dxmi.iterations": 2,
        "dxmi.pretrain_iterations": 2,
    }
)


def good_parts(folder: Path) -> list[Path]:
    """Eight rendered images of good parts, made where they are not there yet."""
    present = sorted(folder.rglob("train/good/*.png"))
    if present:
        return present
    return list(render_demo(folder, train=8, good=0, per_flaw=0, size=64).train_good)


def fit_small(images: list[Path], *, name: str = "small") -> AnomalyDetector:
    """Fit with `SETTINGS` on one thread."""
    return AnomalyDetector.fit(images, name=name, settings=SETTINGS, threads=1)
