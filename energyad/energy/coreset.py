"""The choice of a memory bank's points: few patches that cover many, and their local scales."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

PRIOR_IMAGES = 4
"""Weight of the mean distance over all points in each point's local scale, in images."""

MIN_LOCAL_SCALE = 1e-3
"""In units of the standard deviation along the features' strongest direction."""

NUM_PROJECTIONS = 64
"""Random projections that a coreset's distances are of; 128 take several times as long and choose no better."""

THINNING_START = 256
"""Chosen patches from which on, each time they have doubled, half of the candidates may be left out."""

SPARE_FACTOR = 4
"""Candidates that thinning leaves at the least, in units of how many are to be chosen."""

CHUNK_SIZE = 65536
"""Patches that are projected at once."""


def greedy_coreset(
    patches: Float[Tensor, "n c"],
    size: int,
    generator: torch.Generator,
    *,
    num_projections: int = NUM_PROJECTIONS,
    channel_weights: Float[Tensor, " c"] | None = None,
    selected: Float[Tensor, "m c"] | None = None,
    thinned: bool = False,
) -> Int[Tensor, " size"]:
    """Choose patches by the greedy solution of the k-centre problem (PatchCore, Roth et al., CVPR 2022, algorithm 1).

    Each patch is the farthest from those chosen before it. Unlike a random choice this keeps rare patches, and so
    covers what good parts may look like, not only what they mostly look like.

    Args:
        patches: Candidates, in any floating-point precision.
        size: Patches to choose; all where there are fewer.
        generator: Source of the projections and of the first patch.
        num_projections: Channels of the random projection that distances are measured in, as in the original.
        channel_weights: A factor for each channel. The result is that of weighted patches, without a copy of them.
        selected: Weighted patches that are chosen already. The choice then goes on from them.
        thinned: Leave out the candidates closest to a chosen patch, half of them now and again. They would be the last
            to be chosen.

    Returns:
        Indices of the chosen patches, in the order of their choice.
    """
    projection = torch.randn(patches.shape[1], num_projections, generator=generator)
    weighted = projection if channel_weights is None else channel_weights[:, None] * projection
    points = torch.cat([chunk.float() @ weighted for chunk in patches.split(CHUNK_SIZE)])
    if selected is None:
        nearest = torch.full((len(points),), torch.inf)
        first = int(torch.randint(len(points), (1,), generator=generator))
    else:
        nearest = _squared_distances_to_nearest(points, selected @ projection)
        first = int(nearest.argmax())
    return torch.tensor(_farthest_first(points, nearest, first, min(size, len(points)), thinned=thinned))


def fit_local_scales(
    points: Float[Tensor, "m k"],
    origins: Int[Tensor, " m"],
    images: Iterable[tuple[int, Float[Tensor, "_ k"]]],
) -> Float[Tensor, " m"]:
    """Measure how far from each point those good patches usually lie whose nearest point it is.

    The mean over images of each image's mean distance, shrunk towards the mean over all patches where few images have
    a patch there. Images count alike, not patches: the patches of one image resemble each other.

    Args:
        points: A memory bank's points.
        origins: The image that each point was taken from. Its own patches lie nearer to it than those of a new part
            will, so they do not count.
        images: Index and patches of the images to measure.

    Returns:
        A distance for each point, at least `MIN_LOCAL_SCALE`.
    """
    sums, num_images = torch.zeros(len(points)), torch.zeros(len(points))
    total_distance, num_patches = 0.0, 0
    for image, patches in images:
        foreign = (origins != image).nonzero()[:, 0]
        if len(foreign) > 0:
            distances, nearest = torch.cdist(patches, points[foreign]).min(dim=1)
            image_sums = torch.zeros(len(points)).index_add_(0, foreign[nearest], distances)
            image_counts = torch.bincount(foreign[nearest], minlength=len(points))
            sums += image_sums / image_counts.clamp_min(1)
            num_images += image_counts > 0
            total_distance += float(image_sums.sum())
            num_patches += len(distances)
    mean_distance = total_distance / max(1, num_patches)
    shrunk = (sums + PRIOR_IMAGES * mean_distance) / (num_images + PRIOR_IMAGES)
    return shrunk.clamp_min(MIN_LOCAL_SCALE)


def _squared_distances_to_nearest(
    points: Float[Tensor, "n p"], selected: Float[Tensor, "m p"]
) -> Float[Tensor, " n"]:
    chunks = points.split(CHUNK_SIZE // 8)
    return torch.cat([torch.cdist(chunk, selected).amin(dim=1) for chunk in chunks]).square_()


def _farthest_first(
    points: Float[Tensor, "n p"], nearest: Float[Tensor, " n"], first: int, size: int, *, thinned: bool
) -> list[int]:
    """Choose `size` points, each the farthest from all before. nearest: squared distances so far, overwritten."""
    indices, squares = torch.arange(len(points)), points.square().sum(dim=1)
    latest, chosen = first, [first]
    while len(chosen) < size:
        # ‖x − c‖² = ‖x‖² − 2 x·c + ‖c‖²
        distances = torch.addmv(squares, points, points[latest], alpha=-2).add_(squares[latest])
        torch.minimum(nearest, distances, out=nearest)
        nearest[latest] = -torch.inf  # rounding may leave it above zero
        if thinned and len(chosen) >= THINNING_START and len(chosen).bit_count() == 1:
            count = min(len(nearest), max(len(nearest) // 2, SPARE_FACTOR * size))
            rest = nearest.topk(count).indices.sort().values
            points, squares, nearest, indices = points[rest], squares[rest], nearest[rest], indices[rest]
        latest = int(nearest.argmax())
        chosen.append(int(indices[latest]))
    return chosen
