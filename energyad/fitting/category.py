"""The fit of one category: what to fit on, what to hold out, altered copies, and the energy."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from energyad.energy.patch_energy import CategoryEnergy
from energyad.errors import DataError
from energyad.fitting.augmented import RotatedCopies, photometric_features, rotated_copies
from energyad.fitting.context import FitContext
from energyad.fitting.energies import fit_multiscale_energy
from energyad.fitting.extraction import GoodFeatures, extract
from energyad.fitting.memory_banks import added_points, extend_memory_banks
from energyad.fitting.near_copies import warn_of_near_copies
from energyad.fitting.patches import TrainingPatches, gather_scales, mean_patches
from energyad.fitting.synthetic import synthetic_patches
from energyad.fitting.training import TrainedEnergy
from energyad.images.reading import ImageLike

MIN_IMAGES, ADVISED_IMAGES = 2, 8
TARGET_HELD_OUT = 20
"""Held-out images that are enough for a prediction limit; of larger sets, training gets a larger share."""

MAX_EARLY_STOPPING_IMAGES = 100
"""Held-out images whose patches are gathered for early stopping."""


class Split(NamedTuple):
    """Indices of the images to fit on, and of those held out for the threshold."""

    fitted: list[int]
    held_out: list[int]


@dataclass(frozen=True, eq=False)
class CategoryFit:
    """The energy of a category, and what it was fitted on.

    Attributes:
        name: Of the category.
        context: Of the fit, with the scales that have an energy each: the finest alone where there are rotated copies.
        energy: Of the category's patches.
        trainings: How each training went.
        images: Those that could be read.
        split: Which of them were fitted on, and which held out.
        good: Their features.
        jittered: Features of copies of the fitted images with photometric jitter.
        rotated: Patches of rotated copies.
        held_out_points: Points that held-out images added to each rerank bank, for each scale.
    """

    name: str
    context: FitContext
    energy: CategoryEnergy
    trainings: tuple[TrainedEnergy, ...]
    images: tuple[ImageLike, ...]
    split: Split
    good: GoodFeatures
    jittered: GoodFeatures
    rotated: RotatedCopies
    held_out_points: tuple[int, ...] = ()

    @property
    def held_out_images(self) -> list[ImageLike]:
        """The images held out for the threshold."""
        return [self.images[index] for index in self.split.held_out]

    @property
    def num_channels(self) -> int:
        """Number of channels, the first ones of the features, that the energy uses."""
        return self.context.scales[-1].stop

    def embeddings(self) -> Float[Tensor, "n c"]:
        """Return the mean patches of the fitted images and of their copies with photometric jitter."""
        fitted = mean_patches(self.good.features, self.split.fitted)
        if not self.jittered.indices:
            return fitted
        copies = mean_patches(self.jittered.features, range(len(self.jittered.indices)))
        return torch.cat([fitted, copies])

    def discard(self) -> None:
        """Free the disk that features lie on. Until then an interrupted fit of the same images resumes with them."""
        self.good.discard()
        self.jittered.discard()

    def with_held_out(self) -> Self:
        """Return the same fit whose rerankers know the held-out images too. No energy of any image grows."""
        context, held_out = self.context, self.split.held_out
        patches = gather_scales(
            self.good.features,
            held_out,
            context.scales,
            generator=context.generator(),
            in_roi=context.patches_in_roi,
        )
        with single_thread():
            energy = extend_memory_banks(
                self.energy,
                self.rotated.append_to(patches, held_out),
                num_fitted=len(self.split.fitted),
                seed=context.settings.seed,
            )
        points = added_points(self.energy, energy)
        return replace(self, energy=energy, held_out_points=points)


@dataclass(frozen=True, eq=False)
class PreparedCategory:
    """What the energy of a category is fitted on.

    Attributes:
        context: Of the fit, with the scales that have an energy each: the finest alone where there are rotated copies.
        images: Those that could be read.
        split: Which of them to fit on, and which are held out.
        good: Their features.
        jittered: Features of copies of the fitted images with photometric jitter.
        rotated: Patches of rotated copies.
        patches: What to fit on, for each scale.
        generator: Source of everything random that follows.
    """

    context: FitContext
    images: tuple[ImageLike, ...]
    split: Split
    good: GoodFeatures
    jittered: GoodFeatures
    rotated: RotatedCopies
    patches: list[TrainingPatches]
    generator: torch.Generator

    def fitted(
        self, name: str, energy: CategoryEnergy, trainings: Sequence[TrainedEnergy] = ()
    ) -> CategoryFit:
        """Return the fit of an energy on this.

        Args:
            name: Of the category.
            energy: Of its patches.
            trainings: How each training went.
        """
        return CategoryFit(
            name=name,
            context=self.context,
            energy=energy,
            trainings=tuple(trainings),
            images=self.images,
            split=self.split,
            good=self.good,
            jittered=self.jittered,
            rotated=self.rotated,
        )


def fit_category(name: str, good_images: Sequence[ImageLike], context: FitContext) -> CategoryFit:
    """Fit the energy of one category.

    Args:
        name: Of the category, for messages.
        good_images: Images of its good parts.
        context: Of the fit.

    Raises:
        DataError: For fewer than two images that can be read.
        ImageError: For an image that cannot be read, unless the context skips it.
        TrainingDiverged: Naming the figure that left its bounds.
    """
    prepared = prepare_category(name, good_images, context)
    with single_thread():
        energy, trainings = fit_multiscale_energy(prepared.patches, prepared.context, prepared.generator)
    return prepared.fitted(name, energy, trainings)


def prepare_category(name: str, good_images: Sequence[ImageLike], context: FitContext) -> PreparedCategory:
    """Extract the features of good images and of altered copies, and gather what to fit on.

    Args:
        name: Of the category, for messages.
        good_images: Images of its good parts.
        context: Of the fit.

    Raises:
        DataError: For fewer than two images that can be read.
        ImageError: For an image that cannot be read, unless the context skips it.
    """
    generator = context.generator()
    good = extract(good_images, context)
    require_enough(len(good.indices), of=name)
    warn_of_few(len(good.indices), of=name)
    if context.settings.input.tiling.count == 1:  # of tiles, some are drawn for each image
        warn_of_near_copies(good.features[..., : context.scales[0].stop], of=name)
    images = [good_images[index] for index in good.indices]
    split = split_images(
        len(images), holdout=context.settings.threshold.holdout_fraction, generator=generator
    )
    rotated = rotated_copies(good, images, context, num_fitted=len(split.fitted))
    if rotated.count > 0:
        # A coarse patch sees most of a part: a few parts show it in too few rotations, and rotated copies show what
        # lay beyond the border.
        context = replace(context, scales=context.scales[:1])
    fitted_images = [images[index] for index in split.fitted]
    jittered = photometric_features(fitted_images, context)
    synthetic = synthetic_patches(fitted_images, context)
    patches = gather_training_patches(good, split, rotated, jittered, synthetic, context, generator)
    return PreparedCategory(context, tuple(images), split, good, jittered, rotated, patches, generator)


def gather_training_patches(
    good: GoodFeatures,
    split: Split,
    rotated: RotatedCopies,
    jittered: GoodFeatures,
    synthetic: Sequence[Float16[Tensor, "d c"]],
    context: FitContext,
    generator: torch.Generator,
) -> list[TrainingPatches]:
    """Gather what to fit on, for each scale of the context.

    Args:
        good: Features of the images.
        split: Which of them to fit on, and which are held out.
        rotated: Patches of their rotated copies.
        jittered: Features of the fitted images' copies with photometric jitter.
        synthetic: Patches that synthetic defects cover, for each scale.
        context: Of the fit.
        generator: Source of the choice where there are too many patches.
    """
    gather = partial(gather_scales, scales=context.scales, generator=generator, in_roi=context.patches_in_roi)
    fitted = rotated.append_to(gather(good.features, split.fitted), split.fitted)
    copies = gather(jittered.features, range(len(jittered.indices)))
    held_out = gather(good.features, split.held_out[:MAX_EARLY_STOPPING_IMAGES])
    by_scale = zip(fitted, copies, held_out, synthetic, strict=True)
    return [TrainingPatches(*of_scale) for of_scale in by_scale]


def split_images(count: int, *, holdout: float, generator: torch.Generator) -> Split:
    """Split images at random into those to fit on and those held out for the threshold, at least one of each.

    Args:
        count: Number of images.
        holdout: Fraction to hold out; half of it where that leaves `TARGET_HELD_OUT`.
        generator: Source of the order.
    """
    order = torch.randperm(count, generator=generator).tolist()
    wanted = holdout * count
    num_held_out = max(1, round(min(wanted, max(TARGET_HELD_OUT, wanted / 2))))
    return Split(fitted=sorted(order[num_held_out:]), held_out=sorted(order[:num_held_out]))


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Run PyTorch on one thread: fastest for small networks, and sums come in one order, so the bits are the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def require_enough(count: int, *, of: str) -> None:
    """Raise DataError for fewer good images than can be split into some to fit on and some for the threshold."""
    if count < MIN_IMAGES:
        raise DataError(
            f"{count} usable good image(s) of '{of}': a fit needs at least {MIN_IMAGES}, and is trustworthy from "
            f"{ADVISED_IMAGES} on"
        )


def warn_of_few(count: int, *, of: str) -> None:
    """Warn where energy and threshold rest on few good images."""
    if count < ADVISED_IMAGES:
        message = (
            f"only {count} good images of '{of}': energy and threshold rest on little; {ADVISED_IMAGES} or more are "
            "advised"
        )
        warnings.warn(message, stacklevel=2)
