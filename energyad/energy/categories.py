"""Several categories in one model: each image is judged by the energy of the category that it looks like."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from energyad.energy.networks import MemoryBankEnergy
from energyad.energy.patch_energy import MultiScaleEnergy, PatchEnergy, PatchEnergyLike
from energyad.energy.reranking import Reranker


@dataclass(frozen=True)
class CategoryClassifier:
    """A linear rule that tells categories apart by an image's mean patch: the highest (mean − centre)·axes + offset."""

    centre: Float[Tensor, " c"]
    axes: Float[Tensor, "c n"]
    offsets: Float[Tensor, " n"]


class CategoryMixture(nn.Module):
    """A judge of each category, an expert or one for each scale, and a rule that finds the one to ask, for each image.

    An energy that has to hold several kinds of parts holds each of them less well, and where one kind has few images it
    is starved. The energies know nothing of each other: each is what a model of its category alone would be. An image
    costs as much as with one of them: weights are looked up, not tried out. units: that each one's energies are told
    in, so that one threshold and one scale of colours serve all. tiles: of an image, recognised as a whole.
    """

    centre: Float[Tensor, " c"]
    axes: Float[Tensor, "c n"]
    offsets: Float[Tensor, " n"]
    units: Float[Tensor, " n"]

    def __init__(
        self,
        experts: Sequence[PatchEnergyLike],
        recognition: CategoryClassifier,
        *,
        units: Sequence[float] | None = None,
        tiles: int = 1,
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.tiles = tiles
        for name, value in vars(recognition).items():
            self.register_buffer(name, value)
        self.register_buffer("units", torch.tensor(units or [1.0] * len(experts)))

    def forward(
        self, features: Float[Tensor, "b*tiles g g c"], judged: Bool[Tensor, " p"] | None = None
    ) -> tuple[Float[Tensor, "b*tiles g g"], Int[Tensor, " b"]]:
        """The energy of each patch, as the expert for its image sees it; and the category of each image."""
        patches = features.reshape(-1, self.tiles * features.shape[1] * features.shape[2], features.shape[3])
        category = self.classify(patches)
        own = {name: _of_each(value, category) for name, value in self._stacked().items()}
        energies: Float[Tensor, "b p"] = functional_call(
            self.experts[0], own, (patches, patches.shape[1], judged)
        )
        return (energies / self.units[category][:, None]).reshape(features.shape[:3]), category

    def classify(self, patches: Float[Tensor, "b p c"]) -> Int[Tensor, " b"]:
        """The category of each image, as a number."""
        return ((patches.mean(dim=1) - self.centre) @ self.axes + self.offsets).argmax(dim=1)

    def _stacked(self) -> dict[str, Tensor]:
        """Each weight of all experts, one below another."""
        parameters, buffers = stack_module_state(list(self.experts))
        return {**parameters, **buffers}


def _of_each(stacked: Tensor, category: Int[Tensor, " b"]) -> Tensor:
    """A weight of each image's expert, shaped to act on [b p n]: numbers [b 1], vectors [b 1 n], matrices [b m n]."""
    chosen = stacked.detach().index_select(0, category)
    return chosen if chosen.ndim == 3 else chosen.unsqueeze(1)


def stack_energies(
    experts: Sequence[PatchEnergyLike],
    recognition: CategoryClassifier,
    *,
    units: Sequence[float] | None,
    tiles: int,
) -> CategoryMixture:
    """CategoryMixture side by side, their weights alike.

    Where one of them has fewer prototypes, its last is repeated. Where one has not all scales, it gets another's, which
    do not count.
    """
    own = [copy.deepcopy(each) for each in _of_all_scales(experts)]  # one by one: files hold no weight twice
    united = CategoryMixture(own, recognition, units=units, tiles=tiles)
    for kind in (MemoryBankEnergy, Reranker):
        held = [[each for each in expert.modules() if isinstance(each, kind)] for expert in own]
        for alike in zip(*held, strict=True):
            most = max(each.size for each in alike)
            for each in alike:
                each.repeat_last(most)
    return united


def _of_all_scales(judges: Sequence[PatchEnergyLike]) -> Sequence[PatchEnergyLike]:
    most = next((each for each in judges if isinstance(each, MultiScaleEnergy)), None)
    if most is None:
        return judges
    others = [each for each in most.experts[1:] if isinstance(each, PatchEnergy)]
    shares = (1.0, *[0.0] * len(others))
    return [
        MultiScaleEnergy([each, *others], most.scales, side=most.side, shares=shares).eval()
        if isinstance(each, PatchEnergy)
        else each
        for each in judges
    ]
