"""Several categories in one model: each image is judged by the energy of the category that it looks like."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from energyad.closer_look import CloserLook
from energyad.energy import PrototypeEnergy, whole_and_learned
from energyad.grids import Scale, interpolation_matrix
from energyad.latents import Whitening

LEAST = 1e-3
"""Energies below are alike, a hundredth of what is usual for good patches. Of a patch that is the very prototype which
it is compared with nothing but rounding is left, of which the logarithm would make much."""


class Expert(nn.Module):
    """What judges patches: their latents, these latents' energy, and a closer look at the strangest."""

    def __init__(
        self, whitening: Whitening, energy: nn.Module, closer_look: CloserLook | None = None
    ) -> None:
        super().__init__()
        self.whitening = whitening
        self.energy = energy
        self.closer_look = closer_look

    def forward(
        self, features: Float[Tensor, "b *g c"], per_image: int, judged: Bool[Tensor, " p"] | None = None
    ) -> Float[Tensor, "b *g"]:
        """The energy of each patch, the channel last.

        per_image: patches that an image has. judged: those of them that are worth a closer look, all where None.
        """
        z = self.whitening(features)
        energies, learned = whole_and_learned(self.energy, z)
        if self.closer_look is None:
            return energies
        closer: Float[Tensor, "b *g"] = self.closer_look(
            z, energies, learned=learned, per_image=per_image, judged=judged
        )
        return closer


class ScaleProduct(nn.Module):
    """An expert of each scale, on that scale's own grid: what they make of a place is multiplied.

    log E = Σ_s w_s · log E_s, E_s the energy of one scale's features, its logarithm interpolated between its patches,
    and Σ w = 1: a logarithmic opinion pool (Heskes 1998), a product of experts (Hinton 2002) as steep as one of them.
    In one energy of all features the scale with most of them has most to say, and what one scale alone finds strange
    is lost among what the others find usual.

    side: patches of the grid, a side. shares: w, of each scale.
    """

    shares: Float[Tensor, "*b n"]

    def __init__(
        self, experts: Sequence[Expert], scales: Sequence[Scale], *, side: int, shares: Sequence[float]
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.scales, self.side = tuple(scales), side
        self.register_buffer("shares", torch.tensor(shares))

    def forward(
        self, features: Float[Tensor, "b *g c"], per_image: int, judged: Bool[Tensor, " p"] | None = None
    ) -> Float[Tensor, "b *g"]:
        """The energy of each patch; see `Expert.forward`."""
        total = torch.zeros((), device=features.device)
        for number, (expert, scale) in enumerate(zip(self.experts, self.scales, strict=True)):
            logs = self._log_energies(expert, scale, features, per_image, judged)
            total = total + self.shares[..., number] * logs
        return total.exp()

    def _log_energies(
        self,
        expert: nn.Module,
        scale: Scale,
        features: Float[Tensor, "b *g c"],
        per_image: int,
        judged: Bool[Tensor, " p"] | None,
    ) -> Float[Tensor, "b *g"]:
        """One scale's, at each patch of the grid."""
        if scale.factor == 1:
            energies: Float[Tensor, "b *g"] = expert(scale.of(features), per_image, judged)
            return energies.clamp_min(LEAST).log()
        grids = features.reshape(-1, self.side, self.side, features.shape[-1])
        side = scale.side(self.side)
        count = per_image // self.side**2 * side**2
        counted = None if judged is None else scale.any_of(judged.view(-1, *grids.shape[1:3])).flatten()
        # As many to an image as there are of its weights, where experts of several categories lend them.
        own = scale.of(grids).reshape(features.shape[0], -1, scale.num_channels)
        coarse = expert(own, count, counted).reshape(-1, side, side)
        matrix = interpolation_matrix(side, self.side, margin=scale.margin).to(coarse)  # no weight of its own
        return (matrix @ coarse.clamp_min(LEAST).log() @ matrix.T).reshape(features.shape[:-1])


Judge: TypeAlias = Expert | ScaleProduct


@dataclass(frozen=True)
class Recognition:
    """A linear rule that tells categories apart by an image's mean patch: the highest (mean − centre)·axes + offset."""

    centre: Float[Tensor, " c"]
    axes: Float[Tensor, "c n"]
    offsets: Float[Tensor, " n"]


class Experts(nn.Module):
    """A judge of each category, an expert or one for each scale, and a rule that finds the one to ask, for each image.

    An energy that has to hold several kinds of parts holds each of them less well, and where one kind has few images it
    is starved. Experts know nothing of each other: each is what a model of its category alone would be. An image costs
    as much as with one of them: weights are looked up, not tried out. units: that each one's energies are told in, so
    that one threshold and one scale of colours serve all. tiles: of an image, recognised as a whole.
    """

    centre: Float[Tensor, " c"]
    axes: Float[Tensor, "c n"]
    offsets: Float[Tensor, " n"]
    units: Float[Tensor, " n"]

    def __init__(
        self,
        experts: Sequence[Judge],
        recognition: Recognition,
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
        category = self.recognise(patches)
        own = {name: _of_each(value, category) for name, value in self._stacked().items()}
        energies: Float[Tensor, "b p"] = functional_call(
            self.experts[0], own, (patches, patches.shape[1], judged)
        )
        return (energies / self.units[category][:, None]).reshape(features.shape[:3]), category

    def recognise(self, patches: Float[Tensor, "b p c"]) -> Int[Tensor, " b"]:
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


def unite(
    experts: Sequence[Judge], recognition: Recognition, *, units: Sequence[float] | None, tiles: int
) -> Experts:
    """Experts side by side, their weights alike.

    Where one of them has fewer prototypes, its last is repeated. Where one has not all scales, it gets another's, which
    do not count.
    """
    own = [copy.deepcopy(each) for each in _of_all_scales(experts)]  # one by one: files hold no weight twice
    united = Experts(own, recognition, units=units, tiles=tiles)
    for kind in (PrototypeEnergy, CloserLook):
        held = [[each for each in expert.modules() if isinstance(each, kind)] for expert in own]
        for alike in zip(*held, strict=True):
            most = max(each.size for each in alike)
            for each in alike:
                each.repeat_last(most)
    return united


def _of_all_scales(judges: Sequence[Judge]) -> Sequence[Judge]:
    most = next((each for each in judges if isinstance(each, ScaleProduct)), None)
    if most is None:
        return judges
    others = [each for each in most.experts[1:] if isinstance(each, Expert)]
    shares = (1.0, *[0.0] * len(others))
    return [
        ScaleProduct([each, *others], most.scales, side=most.side, shares=shares).eval()
        if isinstance(each, Expert)
        else each
        for each in judges
    ]


def fit_recognition(looks: Sequence[Float[Tensor, "_ c"]]) -> Recognition:
    """The rule, from mean patches of each category's images: linear discriminants, none likelier than another.

    The covariance within categories is shrunk (Ledoit & Wolf 2004), so that a few images of each are enough.
    """
    centre = torch.cat([*looks]).mean(dim=0)
    inputs = torch.cat([*looks]) - centre
    labels = [number for number, own in enumerate(looks) for _ in own]
    even = [1 / len(looks)] * len(looks)
    rule = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=even)
    rule.fit(inputs.double().numpy(), labels)
    axes, offsets = (
        torch.from_numpy(rule.coef_).float().T.contiguous(),
        torch.from_numpy(rule.intercept_).float(),
    )
    if len(looks) == 2:  # of two, scikit-learn has the difference alone
        axes, offsets = torch.cat([-axes, axes], dim=1) / 2, torch.cat([-offsets, offsets]) / 2
    return Recognition(centre, axes, offsets)
