"""Copies of good images, under other light and turned: of few images many, of very many only some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16
from torch import Tensor

from energyad.features.grids import Scale
from energyad.fitting.extraction import GoodFeatures, extract
from energyad.fitting.roi import patches_in_area
from energyad.images.reading import ImageLike
from energyad.progress import Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.settings import FitSettings

MIN_JITTERED, MAX_JITTERED = 64, 1000

ENOUGH = 192
"""Fitted images that show all directions by themselves; of fewer, as many turned copies are made."""

MIN_COMPARED, MAX_COMPARED = 4, 32
"""Images: of fewer, one that happens to lie like another decides whether they come in any direction."""

MIN_NEARER = 0.1
"""Share of copies that must be as near to other parts as the part itself: half of them, if the light turned too."""

QUERIES, POOL = 256, 3000  # patches of an image, and of all the others together
QUANTILES = (0.9, 0.99)
"""Of an image's distances. Background is alike in every direction, and there may be much of it."""


def photometric_features(
    fitted_images: Sequence[ImageLike],
    session: OnnxFeatures,
    *,
    settings: FitSettings,
    progress: Progress,
) -> GoodFeatures:
    """Features of the fitted images under other light: of few images several times, of very many only some."""
    if settings.augmentation.photometric_jitter == 0:
        return GoodFeatures.none()
    rounds = -(-MIN_JITTERED // len(fitted_images))
    step = -(-len(fitted_images) // MAX_JITTERED)
    chosen = [*fitted_images] * rounds if rounds > 1 else fitted_images[::step]
    return extract(chosen, session, settings=settings, skip_bad=False, progress=progress, change="relit")


@dataclass(frozen=True)
class RotatedCopies:
    """Patches of each image's copies, turned to any direction; count: of the copies together."""

    patches: Float16[Tensor, "n q c"]
    count: int

    def beside(
        self, own: Sequence[Float16[Tensor, "m p c"]], places: Sequence[int]
    ) -> list[Float16[Tensor, "m p_and_q c"]]:
        """Patches of these images, of each scale, the first's with those of their copies, where there are some."""
        if self.count == 0:
            return list(own)
        first, *others = own
        return [torch.cat([first, self.patches[list(places)]], dim=1), *others]


def rotated_copies(
    good: GoodFeatures,
    good_images: Sequence[ImageLike],
    session: OnnxFeatures,
    *,
    scale: Scale,
    num_fitted: int,
    settings: FitSettings,
    progress: Progress,
    area: Bool[Tensor, " p"] | None = None,
) -> RotatedCopies:
    """RotatedCopies copies of the images that `good` are features of, where those that are fitted are few.

    None are made where `settings.augmentation.rotation` is off, or auto and the parts come in one direction.
    scale: whose patches, one of the grid's own. area: patches of the grid that count, see `patches_in_area`.
    """
    n = len(good_images)
    none = RotatedCopies(torch.empty(n, 0, scale.num_channels, dtype=torch.float16), 0)
    rotation = settings.augmentation.rotation
    unseen = rotation == "auto" and n < MIN_COMPARED
    if num_fitted >= ENOUGH or rotation == "off" or unseen:
        return none
    rounds = -(-ENOUGH // num_fitted)
    chosen = [*good_images] * rounds
    found = extract(chosen, session, settings=settings, skip_bad=False, progress=progress, change="turned")
    shown = inscribed(*good.features.shape[1:3])
    in_both = shown & patches_in_area(good.features, area)
    shown = in_both if in_both.any() else shown
    by_image = scale.of(torch.from_numpy(found.features).unflatten(0, (rounds, n)).transpose(0, 1))
    places = torch.from_numpy(shown).view(good.features.shape[1:3])
    patches = by_image[:, :, places]
    if rotation == "auto":
        own = scale.of(torch.from_numpy(good.features))[:, places]
        generator = torch.Generator().manual_seed(settings.seed)
        if not comes_in_any_rotation(own, patches, generator=generator):
            found.discard()
            return none
    patches = patches.half().flatten(1, 2)
    found.discard()
    return RotatedCopies(patches, len(chosen))


def inscribed(rows: int, columns: int) -> Bool[np.ndarray, " p"]:
    """Patches that a turned image shows in every direction; in its corners lies what was beyond the border.

    Of tiles below one another all: where they lay is not known.
    """
    y, x = np.mgrid[0:rows, 0:columns]
    middle = (columns - 1) / 2
    return ((np.hypot(y - middle, x - middle) <= columns / 2) | (rows != columns)).ravel()


def comes_in_any_rotation(
    images: Float16[Tensor, "n p c"], copies: Float16[Tensor, "n r p c"], *, generator: torch.Generator
) -> bool:
    """Whether turned copies of good parts are often as near to the other parts as the parts are themselves.

    images: patches of each. copies: those of its copies. Parts that always lie alike, and surfaces with a grain, are as
    strange as a defect in almost every other direction; of parts that come in any, a copy is one more of them.
    """
    per_image = images.shape[1]
    asked = torch.randperm(per_image, generator=generator)[:QUERIES]
    drawn = torch.randperm(len(images) * per_image, generator=generator)[:POOL]
    pool = images[drawn // per_image, drawn % per_image].float()
    nearer = []
    for place in range(0, len(images), -(-len(images) // MAX_COMPARED)):
        others = pool[drawn // per_image != place]
        own = _farness(images[place, asked].float(), others)
        nearer += [(_farness(copy[asked].float(), others) <= own).float() for copy in copies[place]]
    return bool((torch.stack(nearer).mean(dim=0) >= MIN_NEARER).all())


def _farness(patches: Float[Tensor, "s c"], others: Float[Tensor, "m c"]) -> Float[Tensor, " q"]:
    return torch.cdist(patches, others).amin(dim=1).quantile(torch.tensor(QUANTILES))
