"""Randomly altered copies of good images: photometric jitter, and rotations where parts come in any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor

from energyad.fitting.context import FitContext
from energyad.fitting.extraction import GoodFeatures, extract
from energyad.fitting.roi import eligible_patches
from energyad.images.reading import ImageLike

MIN_JITTERED, MAX_JITTERED = 64, 1000
"""Copies with photometric jitter: several of each image where there are few, of some images where there are many."""

MIN_ROTATED = 192
"""Fitted images that show all rotations by themselves; of fewer, as many rotated copies are made."""

MIN_COMPARED, MAX_COMPARED = 4, 32
"""Images that tell whether parts come in any rotation. Of fewer, one that happens to lie like another would decide."""

MIN_NEARER = 0.1
"""Fraction of copies that must be as near to other parts as the part itself; half of them would be, did the light
rotate too."""

NUM_QUERIES, POOL_SIZE = 256, 3000
"""Patches of one image, and of all the others together, between which distances are measured."""

QUANTILES = (0.9, 0.99)
"""Of an image's distances. Background is the same in every rotation, and there may be much of it."""


def photometric_features(fitted_images: Sequence[ImageLike], context: FitContext) -> GoodFeatures:
    """Extract features of copies with photometric jitter: `MIN_JITTERED` to `MAX_JITTERED` of them, if any.

    Args:
        fitted_images: Images that are fitted on.
        context: Of the fit. A jitter of 0 in its settings makes no copies.
    """
    if context.settings.augmentation.photometric_jitter == 0:
        return GoodFeatures.empty()
    rounds = -(-MIN_JITTERED // len(fitted_images))
    step = -(-len(fitted_images) // MAX_JITTERED)
    originals = [*fitted_images] * rounds if rounds > 1 else fitted_images[::step]
    return extract(originals, context, augmentation="jittered")


@dataclass(frozen=True, eq=False)
class RotatedCopies:
    """Patches of rotated copies of each image.

    Attributes:
        patches: Of all copies of an image together, in the finest scale.
        count: Number of copies of all images together.
    """

    patches: Float16[Tensor, "n q c"]
    count: int

    def append_to(
        self, by_scale: Sequence[Float16[Tensor, "m p c"]], indices: Sequence[int]
    ) -> list[Float16[Tensor, "m p_and_q c"]]:
        """Append the copies' patches to those of their originals.

        Args:
            by_scale: Patches of some images, for each scale. The finest scale's get the copies'.
            indices: Which images these are.
        """
        if self.count == 0:
            return list(by_scale)
        finest, *coarser = by_scale
        return [torch.cat([finest, self.patches[list(indices)]], dim=1), *coarser]


def rotated_copies(
    good: GoodFeatures, good_images: Sequence[ImageLike], context: FitContext, *, num_fitted: int
) -> RotatedCopies:
    """Extract patches of rotated copies, where fitted images are few and parts come in any rotation.

    Args:
        good: Features of the images.
        good_images: The images, those held out too.
        context: Of the fit. Its settings say whether parts come in any rotation; "auto" compares copies with originals,
            see `comes_in_any_rotation`.
        num_fitted: Images among them that are fitted on.

    Returns:
        About `MIN_ROTATED` copies, or none.
    """
    num_images, scale = len(good_images), context.scales[0]
    rotation = context.settings.augmentation.rotation
    none = RotatedCopies(torch.empty(num_images, 0, scale.num_channels, dtype=torch.float16), 0)
    undecidable = rotation == "auto" and num_images < MIN_COMPARED
    if num_fitted >= MIN_ROTATED or rotation == "off" or undecidable:
        return none
    rounds = -(-MIN_ROTATED // num_fitted)
    copies = extract([*good_images] * rounds, context, augmentation="rotated")
    by_image = torch.from_numpy(copies.features).unflatten(0, (rounds, num_images)).transpose(0, 1)
    patches = scale.of(by_image)[:, :, _visible_patches(copies, context)]
    if rotation == "auto":
        originals = scale.of(torch.from_numpy(good.features))[:, _visible_patches(good, context)]
        if not comes_in_any_rotation(originals, patches, generator=context.generator()):
            copies.discard()
            return none
    patches = patches.half().flatten(1, 2)
    copies.discard()
    return RotatedCopies(patches, rounds * num_images)


def inscribed(tiles: int, rows: int, columns: int) -> Bool[np.ndarray, "tiles rows columns"]:
    """Return which patches a rotated image shows in every rotation: the corners show what was beyond the border.

    Of several tiles all patches count: where the tiles lay is not known.
    """
    if tiles > 1:
        return np.ones((tiles, rows, columns), dtype=bool)
    y, x = np.mgrid[0:rows, 0:columns]
    from_centre = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2)
    return (from_centre <= min(rows, columns) / 2)[None]


def comes_in_any_rotation(
    originals: Float16[Tensor, "n p c"], copies: Float16[Tensor, "n r p c"], *, generator: torch.Generator
) -> bool:
    """Test whether rotated copies of good parts are often as near to other parts as the parts themselves.

    Parts that always lie the same way, and surfaces with a grain, look as abnormal as a defect in almost every other
    rotation. Of parts that come in any, a copy is one more of them.

    Args:
        originals: Patches of each image.
        copies: Patches of each image's copies; fewer of each where there are many tiles.
        generator: Source of the patches that are compared.
    """
    num_images, patches_per_image = originals.shape[:2]
    in_both = min(patches_per_image, copies.shape[2])
    queries = torch.randperm(in_both, generator=generator)[:NUM_QUERIES]
    drawn = torch.randperm(num_images * patches_per_image, generator=generator)[:POOL_SIZE]
    origins, places = drawn // patches_per_image, drawn % patches_per_image
    pool = originals[origins, places].float()
    nearer = []
    for index in range(0, num_images, -(-num_images // MAX_COMPARED)):
        others = pool[origins != index]
        distance = _distance_quantiles(originals[index, queries].float(), others)
        nearer += [
            (_distance_quantiles(copy[queries].float(), others) <= distance).float() for copy in copies[index]
        ]
    return bool((torch.stack(nearer).mean(dim=0) >= MIN_NEARER).all())


def _visible_patches(images: GoodFeatures, context: FitContext) -> Bool[Tensor, "tiles g1 g2"]:
    """Return the patches that are seen in every rotation, those in the region of interest where there are any."""
    visible = inscribed(*images.features.shape[1:4])
    in_both = visible & eligible_patches(images.features, context.patches_in_roi)
    return torch.from_numpy(in_both if in_both.any() else visible)


def _distance_quantiles(
    patches: Float[Tensor, "s c"], others: Float[Tensor, "m c"]
) -> Float[Tensor, " quantiles"]:
    return torch.cdist(patches, others).amin(dim=1).quantile(torch.tensor(QUANTILES))
