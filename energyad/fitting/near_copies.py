"""Images that are hardly more than copies of one another, as a burst of one part is: known by their features."""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float16, Int64
from torch import Tensor
from torch.nn import functional as F

MAX_DISTANCE: Final = 0.2
"""Of near copies, as a share of the usual distance to the neighbour of rank `NUM_NEIGHBOURS`. The closest ordinary
images of seven categories lie at 0.21, two photographs of one casting; shots of a fixed camera at 0.08 to 0.2."""

NUM_NEIGHBOURS: Final = 10
MIN_IMAGES: Final = 8
MAX_IMAGES: Final = 2000
"""Images that are compared with one another, the first of a larger set."""

_SIDE: Final = 7


def warn_of_near_copies(features: Float16[np.ndarray, "n tiles g1 g2 c"], *, of: str) -> None:
    """Warn of images that are nearly copies of others, with their number.

    A shot that is fitted on while another of the same part is held out makes the threshold too low. They are not left
    out: parts may be as alike as that.

    Args:
        features: Of the good images.
        of: The category's name, for the message.
    """
    count = len(near_copies(features))
    if count:
        compared = f"the first {MAX_IMAGES}" if len(features) > MAX_IMAGES else len(features)
        warnings.warn(
            f"{count} of {compared} good images of '{of}' are hardly different from another one, as shots of "
            "one part are; keep one of each part, or the threshold is too low",
            stacklevel=2,
        )


def near_copies(features: Float16[np.ndarray, "n tiles g1 g2 c"]) -> Int64[np.ndarray, " k"]:
    """Return the indices of images that are nearly copies of an earlier one, as features show it.

    Of more than `MAX_IMAGES`, the first ones are looked at.

    Args:
        features: Of the good images.
    """
    features = features[:MAX_IMAGES]
    if len(features) < MIN_IMAGES:
        return np.empty(0, np.int64)
    places = _standardised(features)
    distances = torch.cdist(places, places)
    rank = min(NUM_NEIGHBOURS, len(features) // 4)
    usual = distances.kthvalue(rank + 1, dim=1).values.median()  # the nearest is the image itself
    near = torch.tril(distances < MAX_DISTANCE * usual, diagonal=-1)
    return near.any(dim=1).nonzero()[:, 0].numpy()


def _standardised(features: Float16[np.ndarray, "n tiles g1 g2 c"]) -> Float[Tensor, "n d"]:
    """Mean features of a few places of each image, each channel by its own standard deviation."""
    pooled = []
    for tiles in features:
        below_one_another = np.array(tiles, np.float32).reshape(-1, *tiles.shape[-2:])
        pooled.append(F.adaptive_avg_pool2d(torch.from_numpy(below_one_another).permute(2, 0, 1), _SIDE))
    places = torch.stack(pooled).flatten(2)
    deviation = places.std(dim=(0, 2), keepdim=True)
    return ((places - places.mean(dim=(0, 2), keepdim=True)) / (deviation + 1e-6)).flatten(1)
