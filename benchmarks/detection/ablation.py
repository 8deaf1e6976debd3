"""`python -m benchmarks.detection.ablation`: what each part of a fitted model's energy is worth, without fitting again.

A part is taken out of the energy that all parts were fitted for; features of the test images are extracted once. What
a fit without the part would make of the rest is another question, which the rows of `benchmarks.detection` answer.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks import provenance
from benchmarks.command import command
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.fitted import fit_of, parser_of_models
from benchmarks.detection.heads import Finest, features_of_test, figures_of
from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.energy.discriminator import DiscriminatorEnergy
from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.memory_bank import MemoryBankEnergy
from energyad.energy.networks import MAGNITUDE_FLOOR, AutoencoderEnergy
from energyad.energy.patch_energy import (
    CategoryEnergy,
    ImageEnergy,
    PatchEnergies,
    PatchPrediction,
)
from energyad.errors import DataError
from energyad.graphs.cache import extractor_graph
from energyad.model.assembly import assemble_scorer
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.scorer import EnergyHead, Scorer

RESULTS: Final = Path(__file__).with_name("ablation.jsonl")
WHOLE: Final = "all parts"


class _Constant(LatentEnergy):
    """An energy of 1."""

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        return torch.ones_like(z[..., 0])


class _PlainError(LatentEnergy):
    """An autoencoder's error that is not relative to the latent's magnitude."""

    def __init__(self, energy: AutoencoderEnergy) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        relative: Float[Tensor, "*b"] = self.energy(z)
        return relative * (z.square().mean(dim=-1) + MAGNITUDE_FLOOR) / (1 + MAGNITUDE_FLOOR)


class _OneEnergy(ImageEnergy):
    """The energy that detects is shown as well."""

    classifies = False

    def __init__(self, energy: CategoryEnergy) -> None:
        super().__init__()
        self.energy = energy

    def predict(
        self,
        features: Float[Tensor, "b*tiles g1 g2 c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> PatchPrediction:
        detection, _ = self.energy(features, patches_per_image, in_roi)
        return PatchPrediction(PatchEnergies(detection, detection), None)

    def by_category(self) -> Sequence[CategoryEnergy]:
        return (self.energy,)


def _change_latents(change: Callable[[LatentEnergy], LatentEnergy]) -> Callable[[EnergyHead], None]:
    """Return what changes the energy of the latents of each scale."""

    def changed(head: EnergyHead) -> None:
        for energy in head.patch_energy.by_category()[0].by_scale():
            energy.latent_energy = change(energy.latent_energy)

    return changed


def _learned(change: Callable[[LatentEnergy], LatentEnergy]) -> Callable[[EnergyHead], None]:
    """Return what changes the learned part of the energy of each scale."""

    def of_latents(energy: LatentEnergy) -> LatentEnergy:
        if not isinstance(energy, MemoryBankEnergy):
            return change(energy)
        energy.learned = change(energy.learned)
        return energy

    return _change_latents(of_latents)


def _autoencoder(change: Callable[[LatentEnergy], LatentEnergy]) -> Callable[[EnergyHead], None]:
    """Return what changes the autoencoder's energy of each scale."""

    def of_learned(energy: LatentEnergy) -> LatentEnergy:
        if not isinstance(energy, DiscriminatorEnergy):
            return change(energy)
        energy.energy = change(energy.energy)
        return energy

    return _learned(of_learned)


def _plain_error(energy: LatentEnergy) -> LatentEnergy:
    return _PlainError(energy) if isinstance(energy, AutoencoderEnergy) else energy


def _without_discriminator(energy: LatentEnergy) -> LatentEnergy:
    return energy.energy if isinstance(energy, DiscriminatorEnergy) else energy


def _without_bank(head: EnergyHead) -> None:
    _without_reranking(head)
    _change_latents(lambda energy: energy.learned if isinstance(energy, MemoryBankEnergy) else energy)(head)


def _without_reranking(head: EnergyHead) -> None:
    for energy in head.patch_energy.by_category()[0].by_scale():
        energy.reranker = None


def _without_half(head: EnergyHead) -> None:
    finest, *_ = head.patch_energy.by_category()[0].by_scale()
    head.patch_energy = Finest(finest)


def _as_shown(head: EnergyHead) -> None:
    head.patch_energy = _OneEnergy(head.patch_energy.by_category()[0])


def _no_contrast(head: EnergyHead) -> None:
    head.contrast = 1.0


PARTS: Final[Mapping[str, Callable[[EnergyHead], Any]]] = {
    WHOLE: lambda head: None,
    "image at half its size": _without_half,
    "autoencoder": _autoencoder(lambda energy: _Constant()),
    "error relative to the magnitude": _autoencoder(_plain_error),
    "discriminator": _learned(_without_discriminator),
    "memory bank": _without_bank,
    "reranking": _without_reranking,
    "border weights": lambda head: head.border.fill_(1.0),
    "an energy of the heatmap's own": _as_shown,
    "contrast of heatmaps": _no_contrast,
}
"""What takes each part out of a head, in place."""


def without(head: EnergyHead, part: str) -> EnergyHead:
    """Return a copy of a head of one category without a part."""
    changed = copy.deepcopy(head)
    PARTS[part](changed)
    return changed.eval().requires_grad_(False)


def measure_parts(category: Category, scorer: Scorer, *, threads: int) -> dict[str, dict[str, float | None]]:
    """Measure a model with all parts, and without each.

    Args:
        category: Its test images.
        scorer: Of a model of this category alone.
        threads: Of the backbone.

    Returns:
        Image AUROC, pixel AUROC and AUPRO by part.
    """
    grid = scorer.extractor.grid
    session = OnnxFeatures(extractor_graph(scorer.extractor).SerializeToString(), threads=threads)
    features = features_of_test(category, session, grid.image_size)
    return {part: figures_of(category, without(scorer.head, part), features) for part in PARTS}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Append one row for each part of each model."""
    options = parser_of_models("ablation", __doc__, results=RESULTS).parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name in options.categories:
        category = open_anywhere(name, options.data_root)
        detector = AnomalyDetector.load(options.models / name)
        if detector.manifest.categories or detector.manifest.input.tiles.count > 1:
            raise DataError(f"{options.models / name}: give a model of one category, without tiles")
        scorer = assemble_scorer(detector.manifest, detector.contents)
        seed, fitted_with = fit_of(detector)
        for part, figures in measure_parts(category, scorer, threads=options.threads).items():
            row = {
                "part": part,
                "category": name,
                "seed": seed,
                "settings_hash": fitted_with,
                "num_test": len(category.test),
                **figures,
                **vars(provenance.stamp(threads=options.threads)),
            }
            provenance.append_row(options.results, row)
            print(f"{name}, {part}: {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
