"""Energies of patches from their features: of one scale, or of several scales multiplied."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from energyad.energy.latent_energy import LatentEnergy, PaddableBank
from energyad.energy.reranking import Reranker
from energyad.energy.whitening import Whitening
from energyad.features.grids import Grid, Scale, interpolation_matrix

ENERGY_EPS = 1e-3
"""Energies below count as this, a hundredth of what is usual for good patches. A patch that is itself a point of the
memory bank has an energy of rounding errors, whose logarithm would be large."""


class PatchPrediction(NamedTuple):
    """What a model says of patches.

    Attributes:
        energies: The energy of each patch.
        category: The category that each image was taken for, as a number; None for a model of one category.
    """

    energies: Float[Tensor, "b*tiles g1 g2"]
    category: Int[Tensor, " b"] | None


class ImageEnergy(nn.Module, ABC):
    """Base class of what a head holds: the energy of one category's patches, or of several categories'."""

    classifies: bool
    """Whether predictions name a category."""

    @abstractmethod
    def predict(
        self,
        features: Float[Tensor, "b*tiles g1 g2 c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> PatchPrediction:
        """Return the energy of each patch, and the category of each image where there are several.

        Args:
            features: Grids of patches, those of an image's tiles after one another.
            patches_per_image: Patches of an image, of all its tiles together.
            in_roi: Which of them lie in the region of interest; all where None.
        """

    @abstractmethod
    def by_category(self) -> Sequence[CategoryEnergy]:
        """Return the energy of each category."""


class CategoryEnergy(ImageEnergy):
    """Base class of the energies of one category's patches."""

    classifies = False

    @abstractmethod
    def forward(
        self,
        features: Float[Tensor, "b *g c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> Float[Tensor, "b *g"]:
        """Return the energy of each patch.

        Args:
            features: Features of patches, the channel last.
            patches_per_image: Patches of an image, of all its tiles together.
            in_roi: Which of them lie in the region of interest; all where None. The others are not reranked.
        """

    def predict(
        self,
        features: Float[Tensor, "b*tiles g1 g2 c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> PatchPrediction:
        """Return the energy of each patch. See `ImageEnergy.predict`."""
        return PatchPrediction(self(features, patches_per_image, in_roi), None)

    def by_category(self) -> Sequence[CategoryEnergy]:
        """Return itself: there is one category."""
        return (self,)

    @abstractmethod
    def by_scale(self) -> Sequence[PatchEnergy]:
        """Return the energy of each scale, the finest first."""

    @abstractmethod
    def with_scales(self, energies: Sequence[PatchEnergy]) -> CategoryEnergy:
        """Return the same combination of other energies, one for each scale."""

    @abstractmethod
    def pad_scales(self, other: CategoryEnergy) -> CategoryEnergy:
        """Bring another category's energy to these scales, for `stack_module_state`. No energy changes."""

    def memory_banks(self) -> list[PaddableBank]:
        """Return the memory banks of all scales, of both stages."""
        return [bank for energy in self.by_scale() for bank in energy.memory_banks()]


class PatchEnergy(CategoryEnergy):
    """The energy of patches of one scale: whitening, energy of latents, reranking.

    Args:
        whitening: From features to latents.
        latent_energy: The energy of latents.
        reranker: Second stage for each image's highest energies; None for the first stage alone.
    """

    def __init__(
        self, whitening: Whitening, latent_energy: LatentEnergy, reranker: Reranker | None = None
    ) -> None:
        super().__init__()
        self.whitening = whitening
        self.latent_energy = latent_energy
        self.reranker = reranker

    def forward(
        self,
        features: Float[Tensor, "b *g c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> Float[Tensor, "b *g"]:
        """Return the energy of each patch. See `CategoryEnergy.forward`."""
        z = self.whitening(features)
        energies, learned = self.latent_energy.terms(z)
        if self.reranker is None:
            return energies
        reranked: Float[Tensor, "b *g"] = self.reranker(
            z, energies, learned=learned, patches_per_image=patches_per_image, in_roi=in_roi
        )
        return reranked

    def by_scale(self) -> Sequence[PatchEnergy]:
        """Return itself: there is one scale."""
        return (self,)

    def with_scales(self, energies: Sequence[PatchEnergy]) -> CategoryEnergy:
        """Return the only one of the given energies."""
        (energy,) = energies
        return energy

    def pad_scales(self, other: CategoryEnergy) -> CategoryEnergy:
        """Return the other energy: none has fewer scales than one."""
        return other

    def memory_banks(self) -> list[PaddableBank]:
        """Return the memory banks of both stages."""
        first_stage = self.latent_energy.memory_banks()
        return first_stage if self.reranker is None else [*first_stage, self.reranker]


class MultiScaleEnergy(CategoryEnergy):
    """The product of the energies of several scales, each on its own grid.

    log E = Σ_s w_s · log E_s, E_s the energy of one scale's features, its logarithm interpolated between its patches,
    and Σ w = 1: a logarithmic opinion pool (Heskes 1998), a product of experts (Hinton 2002) as steep as one of them.
    One energy of all features would be ruled by the scale with most of them, and what is unusual at one scale alone
    would be lost among what is usual at the others.

    Args:
        scale_energies: E_s, one for each scale.
        scales: Where each scale's features lie.
        shape: Rows and columns of patches of the grid.
        weights: w_s, one for each scale.
    """

    weights: Float[Tensor, "*b n"]

    def __init__(
        self,
        scale_energies: Sequence[PatchEnergy],
        scales: Sequence[Scale],
        *,
        shape: tuple[int, int],
        weights: Sequence[float],
    ) -> None:
        super().__init__()
        self.scale_energies = nn.ModuleList(scale_energies)
        self.scales, self.shape = tuple(scales), shape
        self.register_buffer("weights", torch.tensor(weights))

    def forward(
        self,
        features: Float[Tensor, "b *g c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> Float[Tensor, "b *g"]:
        """Return the energy of each patch. See `CategoryEnergy.forward`."""
        total = torch.zeros((), device=features.device)
        for number, (energy, scale) in enumerate(zip(self._energies(), self.scales, strict=True)):
            if scale.factor == 1:
                energies = energy(scale.of(features), patches_per_image, in_roi)
                log_energies = energies.clamp_min(ENERGY_EPS).log()
            else:
                log_energies = self._coarse_log_energies(energy, scale, features, patches_per_image, in_roi)
            total = total + self.weights[..., number] * log_energies
        return total.exp()

    def by_scale(self) -> Sequence[PatchEnergy]:
        """Return the energy of each scale, the finest first."""
        return tuple(self._energies())

    def with_scales(self, energies: Sequence[PatchEnergy]) -> CategoryEnergy:
        """Return the product of other energies, with the same weights."""
        return MultiScaleEnergy(energies, self.scales, shape=self.shape, weights=self.weights.tolist()).eval()

    def pad_scales(self, other: CategoryEnergy) -> CategoryEnergy:
        """Give an energy of the finest scale alone the coarser scales of this one, at weight 0."""
        energies = other.by_scale()
        if len(energies) == len(self.scales):
            return other
        missing = self.by_scale()[len(energies) :]
        weights = (1.0, *[0.0] * len(missing))
        return MultiScaleEnergy([*energies, *missing], self.scales, shape=self.shape, weights=weights).eval()

    def _energies(self) -> Iterable[PatchEnergy]:
        return self.scale_energies  # type: ignore[return-value]  # a ModuleList holds what it was given

    def _coarse_log_energies(
        self,
        energy: PatchEnergy,
        scale: Scale,
        features: Float[Tensor, "b *g c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None,
    ) -> Float[Tensor, "b *g"]:
        """Return one coarser scale's log-energies, interpolated to each patch of the grid."""
        grids = features.reshape(-1, *self.shape, features.shape[-1])
        shape = scale.shape(self.shape)
        coarse_per_image = patches_per_image // math.prod(self.shape) * math.prod(shape)
        coarse_in_roi = None if in_roi is None else scale.any_of(in_roi.view(-1, *self.shape)).flatten()
        # One row of patches for each row of weights, where each image has its category's weights.
        coarse_features = scale.of(grids).reshape(features.shape[0], -1, scale.num_channels)
        coarse = energy(coarse_features, coarse_per_image, coarse_in_roi).reshape(-1, *shape)
        down, across = (  # no weights of its own
            interpolation_matrix(size, target, margin=scale.margin).to(coarse)
            for size, target in zip(shape, self.shape, strict=True)
        )
        log_energies = down @ coarse.clamp_min(ENERGY_EPS).log() @ across.T
        return log_energies.reshape(features.shape[:-1])


def combine_scales(
    energies: Sequence[PatchEnergy], scales: Sequence[Scale], grid: Grid, coarse_weight: float
) -> CategoryEnergy:
    """Combine the energies of the image and of the image at half its size.

    Args:
        energies: One energy, or one for each of two scales.
        scales: Where their features lie.
        grid: The grid of the finer scale.
        coarse_weight: Weight of the coarser scale in the product, from 0 to 1.

    Returns:
        The energy of the one scale as it is, or the product of both.
    """
    if len(energies) == 1:
        return energies[0]
    return MultiScaleEnergy(
        energies, scales, shape=grid.inner, weights=(1 - coarse_weight, coarse_weight)
    ).eval()
