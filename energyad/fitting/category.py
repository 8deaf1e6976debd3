"""Fitting on the images of one category: what to fit on and what to hold out, its copies, and what judges it."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from energyad.energy.categories import CategoryClassifier
from energyad.energy.patch_energy import CategoryEnergy
from energyad.errors import DataError
from energyad.features.grids import Grid, Scale
from energyad.fitting.augmented import RotatedCopies, photometric_features, rotated_copies
from energyad.fitting.energies import GoodPatches, extend_memory_banks, fit_multiscale_energy, gather_scales
from energyad.fitting.extraction import GoodFeatures, extract
from energyad.fitting.synthetic import synthetic_patches
from energyad.fitting.training import TrainedEnergy
from energyad.images.reading import ImageLike
from energyad.progress import Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.scoring.heatmaps import patches_in_roi, upsampling_axes
from energyad.settings import FitSettings

TARGET_HELD_OUT = 20
MAX_EARLY_STOPPING_IMAGES = 100  # held-out images whose patches training looks at


@dataclass(frozen=True, eq=False)
class CategoryFit:
    """What judges a category's patches, and what it was fitted on.

    images: those that could be read; held_out: places of those kept for the threshold. good: their features, relit:
    of copies under other light, turned: of turned ones. category_embeddings: mean patches of the
    fitted images and the relit ones.
    scales: that have a judge each, not all where turned copies are taught. area: patches that are judged, all where
    None.
    """

    name: str
    judge: CategoryEnergy
    trainings: tuple[TrainedEnergy, ...]
    images: tuple[ImageLike, ...]
    held_out: tuple[int, ...]
    good: GoodFeatures
    relit: GoodFeatures
    turned: RotatedCopies
    category_embeddings: Float[torch.Tensor, "n c"]
    scales: tuple[Scale, ...]
    area: Bool[torch.Tensor, " p"] | None = None

    @property
    def held_out_images(self) -> list[ImageLike]:
        """The images held out for the threshold."""
        return [self.images[place] for place in self.held_out]

    def discard(self) -> None:
        """Free the disk that features lie on; until then an interrupted fit of the same images goes on with them."""
        self.good.discard()
        self.relit.discard()

    def with_held_out(self, *, settings: FitSettings) -> Self:
        """The same with prototypes of the images held out for the threshold, too. No energy of any image grows."""
        generator = torch.Generator().manual_seed(settings.seed)
        held_out_images = gather_scales(
            self.good.features, self.held_out, self.scales, generator=generator, area=self.area
        )
        with single_thread():
            judge = extend_memory_banks(
                self.judge,
                self.turned.beside(held_out_images, self.held_out),
                num_fitted=len(self.images) - len(self.held_out),
                settings=settings,
            )
        return replace(self, judge=judge)


def fit_category(
    name: str,
    good_images: Sequence[ImageLike],
    session: OnnxFeatures,
    *,
    grid: Grid,
    scales: Sequence[Scale],
    settings: FitSettings,
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
        axes = upsampling_axes(grid, settings.input.tiling, smoothing=settings.heatmap.smoothing)
        area = patches_in_roi(torch.from_numpy(mask), axes, settings.input.tiling)
    generator = torch.Generator().manual_seed(settings.seed)
    good = extract(good_images, session, settings=settings, skip_bad=skip_bad, progress=progress)
    require_enough(len(good.kept), of=name)
    warn_of_few(len(good.kept), of=name)
    fitted, held_out = split(len(good.kept), settings=settings, generator=generator)
    images = [good_images[place] for place in good.kept]
    turned = rotated_copies(
        good,
        images,
        session,
        scale=scales[0],
        num_fitted=len(fitted),
        settings=settings,
        progress=progress,
        area=area,
    )
    if turned.count:
        # A patch twice as wide sees most of a part: a few parts show it in too few directions, and turned copies beside
        # what lay beyond the border.
        scales = scales[:1]
    fitted_images = [images[place] for place in fitted]
    relit = photometric_features(fitted_images, session, settings=settings, progress=progress)
    planted = synthetic_patches(
        fitted_images, session, grid=grid, scales=scales, settings=settings, progress=progress, mask=mask
    )
    gather = functools.partial(gather_scales, scales=scales, generator=generator, area=area)
    patches = [
        GoodPatches(*each)
        for each in zip(
            turned.beside(gather(good.features, fitted), fitted),
            gather(relit.features, range(len(relit.kept))),
            gather(good.features, held_out[:MAX_EARLY_STOPPING_IMAGES]),
            planted,
            strict=True,
        )
    ]
    with single_thread():
        judge, trainings = fit_multiscale_energy(patches, scales, grid, settings, generator, progress)
    category_embeddings = mean_patches(good, fitted)
    if relit.kept:
        category_embeddings = torch.cat([category_embeddings, mean_patches(relit, range(len(relit.kept)))])
    return CategoryFit(
        name,
        judge,
        tuple(trainings),
        tuple(images),
        tuple(held_out),
        good,
        relit,
        turned,
        category_embeddings,
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
    share = settings.threshold.holdout_fraction * count
    num_held_out = max(1, round(min(share, max(TARGET_HELD_OUT, share / 2))))
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


def fit_category_classifier(category_embeddings: Sequence[Float[Tensor, "_ c"]]) -> CategoryClassifier:
    """The rule, from mean patches of each category's images: linear discriminants, none likelier than another.

    The covariance within categories is shrunk (Ledoit & Wolf 2004), so that a few images of each are enough.
    """
    centre = torch.cat([*category_embeddings]).mean(dim=0)
    inputs = torch.cat([*category_embeddings]) - centre
    labels = [number for number, own in enumerate(category_embeddings) for _ in own]
    even = [1 / len(category_embeddings)] * len(category_embeddings)
    rule = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=even)
    rule.fit(inputs.double().numpy(), labels)
    axes, offsets = (
        torch.from_numpy(rule.coef_).float().T.contiguous(),
        torch.from_numpy(rule.intercept_).float(),
    )
    if len(category_embeddings) == 2:  # of two, scikit-learn has the difference alone
        axes, offsets = torch.cat([-axes, axes], dim=1) / 2, torch.cat([-offsets, offsets]) / 2
    return CategoryClassifier(centre, axes, offsets)


FEWEST, FEW = 2, 8


def require_enough(count: int, *, of: str) -> None:
    """Refuse fewer good images than can be split into some to fit on and some to set the threshold."""
    if count < FEWEST:
        raise DataError(
            f"{count} usable good image(s) of '{of}': a fit needs at least {FEWEST}, and is trustworthy from {FEW} on"
        )


def warn_of_few(count: int, *, of: str) -> None:
    """Say where energy and threshold rest on few good images."""
    if count < FEW:
        message = f"only {count} good images of '{of}': energy and threshold rest on little; {FEW} or more are advised"
        warnings.warn(message, stacklevel=2)
