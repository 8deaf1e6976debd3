"""Several categories in one model: a classifier finds each image's category, whose energy then scores it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from energyad.energy.patch_energy import CategoryEnergy, ImageEnergy, PatchEnergies, PatchPrediction


class CategoryClassifier(nn.Module):
    """A linear classifier of an image by its mean patch: the category with the highest (mean − centre)·axes + offset.

    Args:
        centre: Subtracted from the mean patch.
        axes: One column for each category.
        offsets: One number for each category.
    """

    centre: Float[Tensor, " c"]
    axes: Float[Tensor, "c n"]
    offsets: Float[Tensor, " n"]

    def __init__(
        self, centre: Float[Tensor, " c"], axes: Float[Tensor, "c n"], offsets: Float[Tensor, " n"]
    ) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("axes", axes)
        self.register_buffer("offsets", offsets)

    def forward(self, patches: Float[Tensor, "b p c"]) -> Int[Tensor, " b"]:
        """Return the category of each image, as a number."""
        return ((patches.mean(dim=1) - self.centre) @ self.axes + self.offsets).argmax(dim=1)


class CategoryMixture(ImageEnergy):
    """The energy of each category, and a classifier that picks one of them for each image (hard routing).

    One energy of several kinds of parts fits each of them less well, and a kind with few images least of all. Here
    each category's energy is what a model of that category alone would have. An image costs as much as with one of
    them: weights are looked up, not tried out. The classifier sees an image with all its tiles.

    Args:
        category_energies: One for each category, all of one structure; see `stack_categories`.
        classifier: Picks the category.
        units: A divisor of each category's energies, so that one threshold and one colour scale serve all; 1 each
            where None.
    """

    units: Float[Tensor, " n"]
    classifies = True

    def __init__(
        self,
        category_energies: Sequence[CategoryEnergy],
        classifier: CategoryClassifier,
        *,
        units: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.category_energies = nn.ModuleList(category_energies)
        self.classifier = classifier
        self.register_buffer("units", torch.tensor(units or [1.0] * len(category_energies)))

    def predict(
        self,
        features: Float[Tensor, "b*tiles g1 g2 c"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> PatchPrediction:
        """Return the energies of each patch by its image's category, and that category. See `ImageEnergy.predict`."""
        patches = features.reshape(-1, patches_per_image, features.shape[3])
        category = self.classifier(patches)
        weights = {name: _select(stacked, category) for name, stacked in self._stacked_weights().items()}
        energies: PatchEnergies = functional_call(
            self.category_energies[0], weights, (patches, patches_per_image, in_roi)
        )
        units, grids = self.units[category][:, None], features.shape[:3]
        return PatchPrediction(PatchEnergies(*((each / units).reshape(grids) for each in energies)), category)

    def by_category(self) -> Sequence[CategoryEnergy]:
        """Return the energy of each category."""
        return tuple(self.category_energies)  # type: ignore[arg-type]  # a ModuleList holds what it was given

    def _stacked_weights(self) -> dict[str, Tensor]:
        parameters, buffers = stack_module_state(list(self.category_energies))
        return {**parameters, **buffers}


def stack_categories(
    energies: Sequence[CategoryEnergy],
    classifier: CategoryClassifier,
    *,
    units: Sequence[float] | None = None,
) -> CategoryMixture:
    """Make a mixture of copies of these energies, brought to one structure.

    Smaller memory banks are padded with copies of their last point. An energy of fewer scales gets another category's
    scales at weight 0. Neither changes an energy.

    Args:
        energies: One for each category.
        classifier: Picks the category of an image.
        units: A divisor of each category's energies; 1 each where None.
    """
    widest = max(energies, key=lambda energy: len(energy.by_scale()))
    # Copied one by one, so that no two share a scale: safetensors refuses tensors that share memory.
    copies = [copy.deepcopy(widest.pad_scales(energy)) for energy in energies]
    for banks in zip(*(energy.memory_banks() for energy in copies), strict=True):
        largest = max(bank.size for bank in banks)
        for bank in banks:
            bank.pad_to(largest)
    return CategoryMixture(copies, classifier, units=units)


def _select(stacked: Tensor, category: Int[Tensor, " b"]) -> Tensor:
    """Look up each image's weight, shaped to act on [b p n]: numbers [b 1], vectors [b 1 n], matrices [b m n]."""
    chosen = stacked.detach().index_select(0, category)
    return chosen if chosen.ndim == 3 else chosen.unsqueeze(1)
