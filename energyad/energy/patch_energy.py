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


LOCALISATION_ODDS = 0.5
"""Power of the discriminator's odds in energies that localise."""

LOCALISATION_COARSE = 0.6
"""What a coarser scale weighs in energies that localise, in units of what it weighs in those that detect."""


class PatchEnergies(NamedTuple):
    """Two energies of each patch.

    What decides best whether a part is defective does not show best where: the image at half its size sees much of the
    part at once, and the discriminator of synthetic defects rates whole images up. Both raise sound patches as well.

    Attributes:
        detection: The energy that the score is the maximum of.
        localisation: The energy that the heatmap shows, in which the discriminator and coarser scales count less.
    """

    detection: Float[Tensor, "b *g"]
    localisation: Float[Tensor, "b *g"]


class PatchPrediction(NamedTuple):
    """What a model says of patches.

    Attributes:
        energies: Of each patch, [b*tiles g1 g2].
        category: The category that each image was taken for, as a number; None for a model of one category.
    """

    energies: PatchEnergies
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
        """Return the energies of each patch, and the category of each image where there are several.

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
    ) -> PatchEnergies:
        """Return the energies of each patch.

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
        """Return the energies of each patch. See `ImageEnergy.predict`."""
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
    ) -> PatchEnergies:
        """Return the energies of each patch. See `CategoryEnergy.forward`."""
        z = self.whitening(features)
        energies, learned, odds = self.latent_energy.terms(z)
        if self.reranker is not None:
            energies = self.reranker(
                z, energies, learned=learned, patches_per_image=patches_per_image, in_roi=in_roi
            )
        return PatchEnergies(energies, energies / odds ** (1 - LOCALISATION_ODDS))

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
    would be lost among what is usual at the others. In the product that localises the coarser ones count less.

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
    ) -> PatchEnergies:
        """Return the energies of each patch. See `CategoryEnergy.forward`."""
        by_scale = []
        for energy, scale in zip(self._energies(), self.scales, strict=True):
            if scale.factor == 1:
                energies = energy(scale.of(features), patches_per_image, in_roi)
                by_scale.append(PatchEnergies(*(each.clamp_min(ENERGY_EPS).log() for each in energies)))
            else:
                logs = self._coarse_log_energies(energy, scale, features, patches_per_image, in_roi)
                by_scale.append(logs)
        coarse = LOCALISATION_COARSE * self.weights[..., 1:]
        weights = torch.cat([1 - coarse.sum(dim=-1, keepdim=True), coarse], dim=-1)
        detection, localisation = zip(*by_scale, strict=True)
        return PatchEnergies(_pooled(detection, self.weights), _pooled(localisation, weights))

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
    ) -> PatchEnergies:
        """Return one coarser scale's log-energies, interpolated to each patch of the grid."""
        grids = features.reshape(-1, *self.shape, features.shape[-1])
        shape = scale.shape(self.shape)
        coarse_per_image = patches_per_image // math.prod(self.shape) * math.prod(shape)
        coarse_in_roi = None if in_roi is None else scale.any_of(in_roi.view(-1, *self.shape)).flatten()
        # One row of patches for each row of weights, where each image has its category's weights.
        coarse_features = scale.of(grids).reshape(features.shape[0], -1, scale.num_channels)
        coarse = energy(coarse_features, coarse_per_image, coarse_in_roi)
        down, across = (  # no weights of its own
            interpolation_matrix(size, target, margin=scale.margin).to(coarse.detection)
            for size, target in zip(shape, self.shape, strict=True)
        )
        logs = (each.reshape(-1, *shape).clamp_min(ENERGY_EPS).log() for each in coarse)
        return PatchEnergies(*((down @ each @ across.T).reshape(features.shape[:-1]) for each in logs))


def _pooled(
    log_energies: Sequence[Float[Tensor, "b *g"]], weights: Float[Tensor, "*b n"]
) -> Float[Tensor, "b *g"]:
    """Return the weighted product of energies."""
    total = torch.zeros((), device=weights.device)
    for number, logs in enumerate(log_energies):
        total = total + weights[..., number] * logs
    return total.exp()


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
