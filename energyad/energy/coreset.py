"""A few patches that cover many: each chosen as the farthest from those chosen before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

FEWEST = 4  # images with patches near a point, as it were at the mean distance of all
NO_DISTANCE = 1e-3  # of features whose strongest direction varies by 1
PROJECTED_CHANNELS = 64
"""Random projections that a coreset's distances are of; 128 take several times as long, and choose no better."""

THINNING_START = 256
"""Chosen patches from which on, each time they have doubled, half of the others may be left out."""

SPARE = 4
"""Patches left to choose from, in units of how many are to be chosen; not so many are thinned further."""

CHUNK = 65536


class Coreset(NamedTuple):
    """A few points that stand for many, and how far from its point one of the many usually lies."""

    points: Float[Tensor, "m k"]
    radii: Float[Tensor, " m"]


def greedy_coreset(
    patches: Float[Tensor, "n c"],
    size: int,
    generator: torch.Generator,
    *,
    channels: int = PROJECTED_CHANNELS,
    stretch: Float[Tensor, " c"] | None = None,
    beside: Float[Tensor, "m c"] | None = None,
    thinned: bool = False,
) -> Int[Tensor, " size"]:
    """Places of at most `size` patches, the greedy solution of the k-centre problem (PatchCore, CVPR 2022, alg. 1).

    Unlike a random choice it keeps rare patches, and so covers what good parts may look like and not only what they
    mostly look like. Distances are those of a random projection to so many channels, as in the original; the first
    patch is drawn. stretch: a factor for each channel of `patches`, which is as good as a copy of them all. beside:
    patches, stretched, that are chosen already: then the choice goes on from them. thinned: of very many patches, leave
    those out of the choice, half of them now and again, that lie closest to one chosen before; they would be the last.
    """
    projection = torch.randn(patches.shape[1], channels, generator=generator)
    from_patches = projection if stretch is None else stretch[:, None] * projection
    points = torch.cat([chunk.float() @ from_patches for chunk in patches.split(CHUNK)])
    places, size = torch.arange(len(points)), min(size, len(points))
    squares = points.square().sum(dim=1)
    nearest = torch.full((len(points),), torch.inf)
    if beside is None:
        centre = int(torch.randint(len(points), (1,), generator=generator))
    else:
        known = beside @ projection
        nearest = torch.cat(
            [torch.cdist(chunk, known).amin(dim=1) for chunk in points.split(CHUNK // 8)]
        ).square_()
        centre = int(nearest.argmax())
    chosen = [int(places[centre])]
    while len(chosen) < size:
        # ‖x − c‖² without ‖c‖², which is the same for all x, and is added to keep minima comparable.
        distances = torch.addmv(squares, points, points[centre], alpha=-2).add_(squares[centre])
        torch.minimum(nearest, distances, out=nearest)
        nearest[centre] = -torch.inf  # rounding may leave it above zero
        if thinned and len(chosen) >= THINNING_START and len(chosen).bit_count() == 1:
            kept = nearest.topk(min(len(nearest), max(len(nearest) // 2, SPARE * size))).indices.sort().values
            points, squares, nearest, places = points[kept], squares[kept], nearest[kept], places[kept]
        centre = int(nearest.argmax())
        chosen.append(int(places[centre]))
    return torch.tensor(chosen)


def fit_local_scales(
    points: Float[Tensor, "m k"],
    origins: Int[Tensor, " m"],
    images: Iterable[tuple[int, Float[Tensor, "_ k"]]],
) -> Float[Tensor, " m"]:
    """How far from each point those patches of other images usually lie whose nearest such point it is.

    A mean over images of each one's mean, drawn towards that of all patches where few images have any there: the
    patches of one image resemble each other, and many of them bear witness to it alone. origins: the image that each
    point was taken from, whose own patches lie nearer to it than those of a new part will. images: some of them, each
    with its patches.
    """
    total, count = torch.zeros(len(points)), torch.zeros(len(points))
    sum_of_all, number_of_all = 0.0, 0
    for image, patches in images:
        foreign = (origins != image).nonzero()[:, 0]
        if len(foreign) > 0:
            distances, nearest = torch.cdist(patches, points[foreign]).min(dim=1)
            own_sum = torch.zeros(len(points)).index_add_(0, foreign[nearest], distances)
            own_number = torch.bincount(foreign[nearest], minlength=len(points))
            total += own_sum / own_number.clamp_min(1)
            count += own_number > 0
            sum_of_all, number_of_all = sum_of_all + float(own_sum.sum()), number_of_all + len(distances)
    usual = sum_of_all / max(1, number_of_all)
    return ((total + FEWEST * usual) / (count + FEWEST)).clamp_min(NO_DISTANCE)
