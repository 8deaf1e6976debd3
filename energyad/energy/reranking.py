"""The second stage of the memory bank: an image's highest energies are measured again, with larger banks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int8
from torch import Tensor, nn

from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.memory_bank import MemoryBank, pad_columns

INT8_MAX = 127
HEADROOM = 2.0
"""Range of the 8-bit points in units of the largest fitted one: points that are added later may lie beyond it. What
lies beyond the range is clipped."""

MAX_MEDIAN_RATIO = 2.0
"""Where all good images are alike, the two stages' distances are rounding errors or the least local scale."""

MIN_ENERGY = 1e-12
"""To divide by."""


class BankColumns(NamedTuple):
    """One or several memory banks as a `Reranker` stores them, one column a point.

    Attributes:
        points: Multiples of the quantisation step of each latent.
        inverse: 1 / r², of the local scales r.
        offset: ‖p‖² / r².
    """

    points: Int8[Tensor, "k m"]
    inverse: Float[Tensor, "1 m"]
    offset: Float[Tensor, "1 m"]


class Reranker(nn.Module):
    """Squared distance to the nearest point, averaged over several large memory banks, for a few patches an image.

    The score of a good part is decided by the rarest of its patches. A small bank cannot hold them all, and a large
    one is too slow for every patch; but few patches of an image have a high energy. For those,
    E(z) = E'(z) · mean_j min_m ‖s ∘ z − p_jm‖² / r_jm² replaces the first stage's energy, as candidates are ranked
    again by a more exact distance in two-stage search. Both stages are in units of what is usual for good parts, so
    they fit into one heatmap. An image's score is its highest smoothed energy, which is nearly always among those that
    are measured again; a large defect has more of them.

    Build one with `from_banks`.

    Args:
        num_banks: Number of banks.
        fraction: Share of an image's patches that are measured again.
        scale: s times the quantisation step.
        metric: s².
        columns: All banks side by side, of one size.
    """

    points: Int8[Tensor, "k banks*m"]
    scale: Float[Tensor, " k"]
    metric: Float[Tensor, " k"]
    inverse: Float[Tensor, "1 banks*m"]
    offset: Float[Tensor, "1 banks*m"]

    def __init__(
        self,
        num_banks: int,
        fraction: float,
        *,
        scale: Float[Tensor, " k"],
        metric: Float[Tensor, " k"],
        columns: BankColumns,
    ) -> None:
        super().__init__()
        self.num_banks = num_banks
        self.fraction = fraction
        self.register_buffer("scale", scale)
        self.register_buffer("metric", metric)
        for name, value in columns._asdict().items():
            self.register_buffer(name, value)

    @classmethod
    def from_banks(
        cls, banks: Sequence[MemoryBank], *, deviations: Float[Tensor, " k"], fraction: float
    ) -> Self:
        """Build a reranker.

        Args:
            banks: Memory banks of one size.
            deviations: s, a factor for each latent that brings it to the units of the points.
            fraction: Share of an image's patches that are measured again.
        """
        farthest = torch.cat([bank.points for bank in banks]).abs().amax(dim=0)
        step = farthest.clamp_min(1e-12) * HEADROOM / INT8_MAX
        columns = _side_by_side([_to_columns(bank, step) for bank in banks])
        return cls(len(banks), fraction, scale=deviations * step, metric=deviations.square(), columns=columns)

    def forward(
        self,
        z: Float[Tensor, "b *g k"],
        energies: Float[Tensor, "b *g"],
        *,
        learned: Float[Tensor, "b *g"],
        patches_per_image: int,
        in_roi: Bool[Tensor, " p"] | None = None,
    ) -> Float[Tensor, "b *g"]:
        """Replace the highest energies of each image.

        Args:
            z: Latents of the patches.
            energies: First-stage energies.
            learned: Their learned parts E'.
            patches_per_image: Patches of an image, of all its tiles together.
            in_roi: Which of them may be measured again; all where None.

        Returns:
            The energies, those of the chosen patches replaced.
        """
        latents = z.reshape(-1, patches_per_image, z.shape[-1])
        first_stage = energies.reshape(-1, patches_per_image)
        eligible = first_stage if in_roi is None else first_stage * in_roi
        places = eligible.topk(self.num_reranked(patches_per_image), dim=1, sorted=False).indices
        chosen = latents.gather(1, places.unsqueeze(-1).expand(-1, -1, latents.shape[-1]))
        chosen_learned = learned.reshape(-1, patches_per_image).gather(1, places)
        reranked = chosen_learned * self.squared_distance(chosen)
        return first_stage.scatter(1, places, reranked).reshape(-1, *energies.shape[1:])

    def squared_distance(self, z: Float[Tensor, "b h k"]) -> Float[Tensor, "b h"]:
        """Return the mean over banks of the squared distance to the nearest point, in units of its local scale."""
        weight = torch.cat([-2 * self.inverse * self.points.to(z.dtype), self.inverse, self.offset], dim=-2)
        squares = (z.square() * self.metric).sum(dim=-1, keepdim=True)
        inputs = torch.cat([z * self.scale, squares, torch.ones_like(squares)], dim=-1)
        banks = [weight] if self.num_banks == 1 else weight.split(self.size, dim=-1)
        nearest = [(inputs @ bank).amin(dim=-1) for bank in banks]
        return torch.stack(nearest).mean(dim=0).clamp_min(0)

    def num_reranked(self, patches_per_image: int) -> int:
        """Return how many of an image's patches are measured again: at least one."""
        return max(1, round(patches_per_image * self.fraction))

    @property
    def free_columns(self) -> tuple[str, ...]:
        """Buffers whose number of columns shapes no graph: those of a single bank, which nothing splits."""
        return BankColumns._fields if self.num_banks == 1 else ()

    @property
    def size(self) -> int:
        """Number of points of each bank."""
        return self.points.shape[-1] // self.num_banks

    def bank_points(self) -> Float[Tensor, "banks m k"]:
        """Return the points of each bank, in the units of the features."""
        return (self.points * self._step[:, None]).T.unflatten(0, (self.num_banks, self.size))

    def median_local_scales(self) -> Float[Tensor, " banks"]:
        """Return the median local scale of each bank's points."""
        return torch.stack([bank.inverse.rsqrt().median() for bank in self._banks()])

    def extended(self, added: Sequence[MemoryBank], *, behind: int = 0) -> Reranker:
        """Return a copy with more points in each bank. No distance grows.

        Args:
            added: Points for each bank, equally many.
            behind: How many of each bank's points stay behind the added ones.
        """
        return self._joined(self._split(behind, [_to_columns(bank, self._step) for bank in added]))

    def without(self, count: int, *, behind: int = 0) -> Reranker:
        """Return a copy without `count` points of each bank: those in front of its last `behind` ones."""
        start, stop = self.size - behind - count, self.size - behind
        parts = [[_part(bank, 0, start), _part(bank, stop, self.size)] for bank in self._banks()]
        return self._joined(parts)

    def with_last_of(self, other: Reranker, count: int) -> Reranker:
        """Return a copy with the last `count` points of each bank of another reranker of the same fit, at the end."""
        theirs = [_part(bank, other.size - count, other.size) for bank in other._banks()]
        return self._joined(self._split(0, theirs))

    def _split(self, behind: int, between: Sequence[BankColumns]) -> list[list[BankColumns]]:
        """Each bank in two, and something between the two."""
        end = self.size - behind
        return [
            [_part(bank, 0, end), middle, _part(bank, end, self.size)]
            for bank, middle in zip(self._banks(), between, strict=True)
        ]

    def _joined(self, parts: Sequence[Sequence[BankColumns]]) -> Reranker:
        columns = _side_by_side([_side_by_side(of_bank) for of_bank in parts])
        return Reranker(self.num_banks, self.fraction, scale=self.scale, metric=self.metric, columns=columns)

    def pad_to(self, size: int) -> None:
        """Repeat each bank's last point until there are `size` points. No distance changes."""
        padded = [BankColumns(*(pad_columns(part, size) for part in bank)) for bank in self._banks()]
        self.points, self.inverse, self.offset = _side_by_side(padded)

    @property
    def _step(self) -> Float[Tensor, " k"]:
        return self.scale / self.metric.sqrt()

    def _banks(self) -> list[BankColumns]:
        by_bank = (part.split(self.size, dim=1) for part in (self.points, self.inverse, self.offset))
        return [BankColumns(*parts) for parts in zip(*by_bank, strict=True)]


@torch.no_grad()
def match_medians(energy: LatentEnergy, reranker: Reranker, held_out: Float[Tensor, "m p k"]) -> None:
    """Scale the first stage's distances so that reranked patches keep their energy, at the median.

    Patches are reranked for a high energy in the first stage, which some have by chance; the second stage finds them a
    fifth lower. Without the scale the next ones in line would stand out beside them. A scale changes neither which
    patches are reranked nor their second energy. The ratio is bounded by `MAX_MEDIAN_RATIO`.

    Args:
        energy: The first stage. Its distances are scaled in place.
        reranker: The second stage.
        held_out: Latents of good images that neither stage has points of, image by image.
    """
    ratios = []
    for latents in held_out:
        first_stage, learned, _ = energy.terms(latents)
        highest = first_stage.topk(reranker.num_reranked(len(latents))).indices
        reranked = learned[highest] * reranker.squared_distance(latents[None, highest])[0]
        ratios.append(reranked / first_stage[highest].clamp_min(MIN_ENERGY))
    median = torch.cat(ratios).median()
    energy.scale_distances(float(median.clamp(1 / MAX_MEDIAN_RATIO, MAX_MEDIAN_RATIO)))


def _to_columns(bank: MemoryBank, step: Float[Tensor, " k"]) -> BankColumns:
    points = (bank.points / step).round().clamp(-INT8_MAX, INT8_MAX)
    squares = (points * step).square().sum(dim=1)
    inverse = bank.local_scales.square().reciprocal()
    return BankColumns(points.to(torch.int8).T, inverse[None], (squares * inverse)[None])


def _part(bank: BankColumns, start: int, stop: int) -> BankColumns:
    return BankColumns(*(part[:, start:stop] for part in bank))


def _side_by_side(banks: Sequence[BankColumns]) -> BankColumns:
    return BankColumns(*(torch.cat(parts, dim=1) for parts in zip(*banks, strict=True)))
