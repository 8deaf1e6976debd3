"""Fitting on the images of one category: what to fit on and what to hold out, its copies, and what judges it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float

from energyad import detector
from energyad.copies import Turned, relit_features, turned_copies
from energyad.experts import Judge
from energyad.extraction import GoodFeatures, extract, require_enough, warn_of_few
from energyad.grids import Grid, Scale
from energyad.heads import GoodPatches
from energyad.planted import planted_patches
from energyad.progress import Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scales import fit_judge, gather_scales, with_parts
from energyad.scorer import judged_patches, upsampling_axes
from energyad.settings import FitSettings
from energyad.training import TrainedEnergy

ENOUGH_HELD_OUT = 20
MOST_WATCHED = 100  # held-out images whose patches training looks at


@dataclass(frozen=True, eq=False)
class CategoryFit:
    """What judges a category's patches, and what it was fitted on.

    images: those that could be read; held_out: places of those kept for the threshold. good: their features, relit:
    of copies under other light, turned: of turned ones. looks: mean patches of the fitted images and the relit ones.
    scales: that have a judge each, not all where turned copies are taught. area: patches that are judged, all where
    None.
    """

    name: str
    judge: Judge
    trainings: tuple[TrainedEnergy, ...]
    images: tuple[detector.ImageLike, ...]
    held_out: tuple[int, ...]
    good: GoodFeatures
    relit: GoodFeatures
    turned: Turned
    looks: Float[torch.Tensor, "n c"]
    scales: tuple[Scale, ...]
    area: Bool[torch.Tensor, " p"] | None = None

    @property
    def kept_back(self) -> list[detector.ImageLike]:
        """The images held out for the threshold."""
        return [self.images[place] for place in self.held_out]

    def discard(self) -> None:
        """Free the disk that features lie on; until then an interrupted fit of the same images goes on with them."""
        self.good.discard()
        self.relit.discard()

    def with_all_parts(self, *, settings: FitSettings) -> Self:
        """The same with prototypes of the images held out for the threshold, too. No energy of any image grows."""
        generator = torch.Generator().manual_seed(settings.seed)
        kept_back = gather_scales(
            self.good.features, self.held_out, self.scales, generator=generator, area=self.area
        )
        with single_thread():
            judge = with_parts(
                self.judge,
                self.turned.beside(kept_back, self.held_out),
                num_fitted=len(self.images) - len(self.held_out),
                settings=settings,
            )
        return replace(self, judge=judge)


def fit_category(
    name: str,
    good_images: Sequence[detector.ImageLike],
    session: OnnxFeatures,
    *,
    grid: Grid,
    scales: Sequence[Scale],
    settings: FitSettings,
    any_direction: bool | None,
    skip_bad: bool,
    progress: Progress,
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> CategoryFit:
    """Fit on images of good parts of one category. Raises DataError for fewer than two that can be read, ImageError.

    scales: what is judged by itself. mask: pixels of the resized image that are judged. What lies beside them is not
    learned: it would take prototypes from the part, and what a network learns.
    """
    area = None
    if mask is not None:
        axes = upsampling_axes(grid, settings.cut(), smoothing=settings.smoothing)
        area = judged_patches(torch.from_numpy(mask), axes, settings.cut())
    generator = torch.Generator().manual_seed(settings.seed)
    good = extract(good_images, session, settings=settings, skip_bad=skip_bad, progress=progress)
    require_enough(len(good.kept), of=name)
    warn_of_few(len(good.kept), of=name)
    fitted, held_out = split(len(good.kept), settings=settings, generator=generator)
    images = [good_images[place] for place in good.kept]
    turned = turned_copies(
        good,
        images,
        session,
        scale=scales[0],
        num_fitted=len(fitted),
        any_direction=any_direction,
        settings=settings,
        progress=progress,
        area=area,
    )
    if turned.count:
        # A patch twice as wide sees most of a part: a few parts show it in too few directions, and turned copies beside
        # what lay beyond the border.
        scales = scales[:1]
    fitted_images = [images[place] for place in fitted]
    relit = relit_features(fitted_images, session, settings=settings, progress=progress)
    planted = planted_patches(
        fitted_images, session, grid=grid, scales=scales, settings=settings, progress=progress, mask=mask
    )
    gather = functools.partial(gather_scales, scales=scales, generator=generator, area=area)
    patches = [
        GoodPatches(*each)
        for each in zip(
            turned.beside(gather(good.features, fitted), fitted),
            gather(relit.features, range(len(relit.kept))),
            gather(good.features, held_out[:MOST_WATCHED]),
            planted,
            strict=True,
        )
    ]
    with single_thread():
        judge, trainings = fit_judge(patches, scales, grid, settings, generator, progress)
    looks = mean_patches(good, fitted)
    if relit.kept:
        looks = torch.cat([looks, mean_patches(relit, range(len(relit.kept)))])
    return CategoryFit(
        name,
        judge,
        tuple(trainings),
        tuple(images),
        tuple(held_out),
        good,
        relit,
        turned,
        looks,
        tuple(scales),
        area,
    )


def mean_patches(features: GoodFeatures, places: Sequence[int]) -> Float[torch.Tensor, "n c"]:
    """The mean patch of each image; read in order, one image at a time: they may lie on a disk."""
    means = [features.features[place].mean(axis=(0, 1), dtype=np.float32) for place in places]
    return torch.from_numpy(np.stack(means))


def split(count: int, *, settings: FitSettings, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """Images to fit on and images held out for the threshold: at least one of each.

    Twenty held out are enough for a prediction limit, so larger sets give training a larger share.
    """
    order = torch.randperm(count, generator=generator).tolist()
    share = settings.holdout * count
    num_held_out = max(1, round(min(share, max(ENOUGH_HELD_OUT, share / 2))))
    return sorted(order[num_held_out:]), sorted(order[:num_held_out])


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Small networks are fastest on one thread, and one thread adds up in one order: the same bits every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
