"""A second, closer look at the strangest patches of an image, with many more good patches to compare them with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor, nn

from energyad.energy.coreset import Coreset
from energyad.energy.networks import MemoryBankEnergy, energy_factors, pad_columns

LARGEST = 127  # of an 8-bit integer
HEADROOM = 2.0
"""Room for prototypes that are added: held-out parts may go beyond the fitted ones. What goes farther is cut off."""

MAX_MEDIAN_RATIO = 2.0
"""Images that are all alike lie at no distance at all from their closest prototypes, or all at the least radius."""


class Columns(NamedTuple):
    """MemoryBank as a `Reranker` holds them, one column each."""

    points: Int8[Tensor, "k m"]
    inverse: Float[Tensor, "1 m"]
    offset: Float[Tensor, "1 m"]


class Reranker(nn.Module):
    """Squared distances to the nearest prototype, in units of its radius, averaged over several coresets.

    What good parts score is decided by the rarest of their patches, which a few prototypes cannot all hold; thousands
    are too dear for every patch, but few patches of an image are strange. E(z) = E'(z) · mean_j min_m ‖s ∘ z − p_jm‖² /
    r_jm² takes the place of the first look's energy there, as in two-stage search, where candidates are ranked again by
    a dearer distance. Both are in units of what is usual for good parts, so that they stand side by side in one
    heatmap. An image's score is its highest smoothed energy, which hardly any but the strangest patches can be; a large
    defect has more of them.

    share: of an image's patches that are looked at.
    points: p, one column each, coreset beside coreset, as 8-bit multiples of the grain of each latent.
    """

    points: Int8[Tensor, "k looks*m"]
    scale: Float[Tensor, " k"]
    metric: Float[Tensor, " k"]
    inverse: Float[Tensor, "1 looks*m"]
    offset: Float[Tensor, "1 looks*m"]

    def __init__(
        self,
        num_looks: int,
        share: float,
        scale: Float[Tensor, " k"],
        metric: Float[Tensor, " k"],
        points: Int8[Tensor, "k looks*m"],
        inverse: Float[Tensor, "1 looks*m"],
        offset: Float[Tensor, "1 looks*m"],
    ) -> None:
        """See `of`. scale: s ∘ grain. metric: s². inverse: 1 / r². offset: ‖p‖² / r²."""
        super().__init__()
        self.num_looks = num_looks
        self.share = share
        self.register_buffer("scale", scale)
        self.register_buffer("metric", metric)
        self.register_buffer("points", points)
        self.register_buffer("inverse", inverse)
        self.register_buffer("offset", offset)

    @classmethod
    def of(cls, stretch: Float[Tensor, " k"], coresets: Sequence[Coreset], *, share: float) -> Self:
        """With these coresets of latents times s, of one size. stretch: s, a factor for each latent."""
        farthest = torch.cat([each.points for each in coresets]).abs().amax(dim=0)
        grain = farthest.clamp_min(1e-12) * HEADROOM / LARGEST
        columns = _side_by_side([_columns(each, grain) for each in coresets])
        return cls(len(coresets), share, stretch * grain, stretch.square(), *columns)

    def forward(
        self,
        z: Float[Tensor, "b *g k"],
        energies: Float[Tensor, "b *g"],
        *,
        learned: Float[Tensor, "b *g"],
        per_image: int,
        judged: Bool[Tensor, " p"] | None = None,
    ) -> Float[Tensor, "b *g"]:
        """Energies with those of the strangest patches replaced.

        z: latents. energies: at first look. learned: E' of each. per_image: patches that an image has, in however
        many tiles. judged: those of them that count.
        """
        patches, at_first = z.reshape(-1, per_image, z.shape[-1]), energies.reshape(-1, per_image)
        strange = at_first if judged is None else at_first * judged
        places = strange.topk(self.count_of(per_image), dim=1, sorted=False).indices
        chosen = patches.gather(1, places.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        closer = learned.reshape(-1, per_image).gather(1, places) * self.squared_distance(chosen)
        return at_first.scatter(1, places, closer).reshape(-1, *energies.shape[1:])

    def squared_distance(self, z: Float[Tensor, "b h k"]) -> Float[Tensor, "b h"]:
        """Mean over the coresets of the squared distance to the nearest prototype, in units of its squared radius."""
        weight = torch.cat([-2 * self.inverse * self.points.to(z.dtype), self.inverse, self.offset], dim=-2)
        squares = (z.square() * self.metric).sum(dim=-1, keepdim=True)
        terms = torch.cat([z * self.scale, squares, torch.ones_like(squares)], dim=-1)
        looks = weight.split(self.size, dim=-1)
        return torch.stack([(terms @ look).amin(dim=-1) for look in looks]).mean(dim=0).clamp_min(0)

    def count_of(self, per_image: int) -> int:
        """Patches that are looked at, of so many."""
        return max(1, round(per_image * self.share))

    @property
    def size(self) -> int:
        """MemoryBank of each coreset."""
        return self.points.shape[-1] // self.num_looks

    def stretched(self) -> Float[Tensor, "looks m k"]:
        """The prototypes, in the latents' own lengths."""
        return (self.points * self._grain[:, None]).T.unflatten(0, (self.num_looks, self.size))

    def extended(self, added: Sequence[Float[Tensor, "m k"]]) -> Reranker:
        """The same with more prototypes in each coreset, each with the middle radius there: no distance grows."""
        looks = []
        for own, points in zip(self._looks(), added, strict=True):
            radius = own.inverse.rsqrt().median()
            more = _columns(Coreset(points, radius.expand(len(points))), self._grain)
            looks.append(_side_by_side([own, more]))
        return Reranker(self.num_looks, self.share, self.scale, self.metric, *_side_by_side(looks))

    def repeat_last(self, size: int) -> None:
        """Repeat each coreset's last prototype until there are so many; no distance changes."""
        looks = [Columns(*(pad_columns(each, size) for each in own)) for own in self._looks()]
        self.points, self.inverse, self.offset = _side_by_side(looks)

    @property
    def _grain(self) -> Float[Tensor, " k"]:
        return self.scale / self.metric.sqrt()

    def _looks(self) -> list[Columns]:
        """The columns of each coreset."""
        by_look = (each.split(self.size, dim=1) for each in (self.points, self.inverse, self.offset))
        return [Columns(*own) for own in zip(*by_look, strict=True)]


@torch.no_grad()
def match_medians(energy: nn.Module, look: Reranker, unseen: Float[Tensor, "m p k"]) -> None:
    """Scale first looks so that patches which get a closer look have the same energy in both, at the median.

    They get it for being high at first look, which some are by its luck alone; the closer look finds them a fifth
    lower. Without the scale the next ones in line, as lucky, would stand out beside them. A scale changes neither
    which are looked at nor what is found there. unseen: latents of good images that gave no prototypes.
    """
    ratios = []
    for patches in unseen:
        first, learned = energy_factors(energy, patches)
        highest = first.topk(look.count_of(len(patches))).indices
        closer = learned[highest] * look.squared_distance(patches[None, highest])[0]
        ratios.append(closer / first[highest].clamp_min(1e-12))
    factor = float(torch.cat(ratios).median().clamp(1 / MAX_MEDIAN_RATIO, MAX_MEDIAN_RATIO))
    for each in energy.modules():
        if isinstance(each, MemoryBankEnergy):
            each.scale_distances(factor)


def _columns(coreset: Coreset, grain: Float[Tensor, " k"]) -> Columns:
    points = (coreset.points / grain).round().clamp(-LARGEST, LARGEST)
    squares = (points * grain).square().sum(dim=1)
    inverse = coreset.radii.square().reciprocal()
    return Columns(points.to(torch.int8).T, inverse[None], (squares * inverse)[None])


def _side_by_side(several: Sequence[Columns]) -> Columns:
    return Columns(*(torch.cat(each, dim=1) for each in zip(*several, strict=True)))
