"""A few patches that cover many: each chosen as the farthest from those chosen before it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

FEWEST = 4  # patches near a point, as it were at the mean distance of all
NO_DISTANCE = 1e-3  # of features whose strongest direction varies by 1
PROJECTED_CHANNELS = 128  # as in patchcore-inspection's approximate greedy coreset
CHUNK = 65536


def greedy_coreset(
    patches: Float[Tensor, "n c"], size: int, generator: torch.Generator
) -> Int[Tensor, " size"]:
    """Places of at most `size` patches, the greedy solution of the k-centre problem (PatchCore, CVPR 2022, alg. 1).

    Unlike a random choice it keeps rare patches, and so covers what good parts may look like and not only what they
    mostly look like. Distances are those of a random projection, as in the original; the first patch is drawn.
    """
    projection = torch.randn(patches.shape[1], PROJECTED_CHANNELS, generator=generator)
    points = torch.cat([chunk.float() @ projection for chunk in patches.split(CHUNK)])
    squares = points.square().sum(dim=1)
    nearest = torch.full((len(points),), torch.inf)
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    while len(chosen) < min(size, len(points)):
        centre = chosen[-1]
        # ‖x − c‖² without ‖c‖², which is the same for all x, and is added to keep minima comparable.
        distances = torch.addmv(squares, points, points[centre], alpha=-2).add_(squares[centre])
        torch.minimum(nearest, distances, out=nearest)
        nearest[centre] = -torch.inf  # rounding may leave it above zero
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen)


def usual_distances(points: Float[Tensor, "m k"], patches: Float[Tensor, "n k"]) -> Float[Tensor, " m"]:
    """How far from each point those patches usually lie whose nearest point it is.

    A mean, drawn towards that of all patches where few are near. The points should not have been chosen among them:
    a point is at no distance from itself, and its neighbours are nearer than patches of other images will be.
    """
    total, count = torch.zeros(len(points)), torch.zeros(len(points))
    for chunk in patches.split(CHUNK // 8):
        distances, nearest = torch.cdist(chunk, points).min(dim=1)
        total.index_add_(0, nearest, distances)
        count.index_add_(0, nearest, torch.ones_like(distances))
    usual = total.sum() / len(patches)
    return ((total + FEWEST * usual) / (count + FEWEST)).clamp_min(NO_DISTANCE)
