"""From images of good parts to a model: features, energies, threshold, graph, manifest."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from energyad.energy.categories import stack_categories
from energyad.energy.patch_energy import ImageEnergy
from energyad.errors import DataError
from energyad.features import backbones
from energyad.fitting.backbone import Backbone, open_backbone
from energyad.fitting.category import CategoryFit, fit_category, require_enough, single_thread
from energyad.fitting.checks import DistinctImages, distinct_images
from energyad.fitting.classifier import fit_category_classifier
from energyad.fitting.context import FitContext
from energyad.fitting.packaging import FinishedFit, package
from energyad.fitting.roi import RoiSource, load_roi
from energyad.fitting.threshold import calibrate_on
from energyad.images.input_shape import find_input_shape
from energyad.images.reading import DEFAULT_MAX_PIXELS, ImageLike
from energyad.model.manifest import Manifest
from energyad.progress import NullProgress, PrefixedProgress, Progress
from energyad.runtimes.plan import available_threads
from energyad.scoring.scorer import EnergyHead
from energyad.settings import FitSettings


def fit_model(
    good_images: Sequence[ImageLike],
    *,
    name: str,
    categories: Sequence[str] | None = None,
    settings: FitSettings | None = None,
    backbone_weights: Path | None = None,
    threads: int | None = None,
    roi: RoiSource | None = None,
    ignore: RoiSource | None = None,
    skip_bad: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress | None = None,
) -> tuple[Manifest, dict[str, bytes]]:
    """Fit a model on images of good parts.

    Args:
        good_images: Files, arrays or Pillow images.
        name: Of the model.
        categories: The category of each image; None for one category.
        settings: Of the fit; the defaults where None.
        backbone_weights: A file to use in place of timm's weights.
        threads: Threads of the backbone; None for all cores. Small networks train on one.
        roi: The only part of the image that counts; None for all of it.
        ignore: A part of the image that does not count.
        skip_bad: Leave out images that cannot be read, with a warning.
        max_pixels: Width times height of the largest image file that is decoded.
        progress: Called at each stage.

    Returns:
        The manifest, and the files of the model folder by name.

    Raises:
        DataError: For fewer than two images of a category.
        ImageError: For an image that cannot be read, unless `skip_bad`.
        SettingsError: For a backbone, strides or region of interest that leave nothing.
        TrainingDiverged: Naming the figure that left its bounds.
    """
    started = time.perf_counter()
    settings, progress = settings or FitSettings(), progress or NullProgress()
    groups = group_by_category(good_images, categories, name=name)
    distinct = leave_out_copies(groups, settings, threads, skip_bad=skip_bad, max_pixels=max_pixels)
    groups = {category: found.images for category, found in distinct.items()}
    digests = tuple(digest for found in distinct.values() for digest in found.digests)
    settings = shape_input(settings, [shape for found in distinct.values() for shape in found.shapes])
    roi_mask = load_roi(settings.input.shape, roi=roi, ignore=ignore)
    progress.stage("backbone", 1)
    open_with = functools.partial(
        open_backbone,
        good_images,
        weights_file=backbone_weights,
        threads=threads,
        skip_bad=skip_bad,
        max_pixels=max_pixels,
    )
    backbone = open_with(settings)
    context = FitContext(
        settings=settings,
        session=backbone.session,
        grid=backbone.extractor.grid,
        scales=backbone.extractor.scales,
        roi_mask=roi_mask.mask,
        skip_bad=skip_bad,
        progress=progress,
        max_pixels=max_pixels,
    )
    fits = fit_categories(groups, context)
    backbone, context = drop_unused_scales(fits, backbone, context, open_with)
    with single_thread():
        calibration = calibrate_on(fits, build_head(fits, context), context)
    # Energies only fall from here, so the threshold's guarantee for a model without the held-out parts still holds.
    fits = tuple(fit.with_held_out() for fit in fits)
    head = build_head(fits, context, units=calibration.units)
    finished = FinishedFit(name, context.settings, backbone, fits, head, calibration, roi_mask.spec, digests)
    manifest, contents = package(finished, threads=threads, started=started)
    for fit in fits:
        fit.discard()
    return manifest, contents


def group_by_category(
    good_images: Sequence[ImageLike], categories: Sequence[str] | None, *, name: str
) -> dict[str, list[ImageLike]]:
    """Group images by category, in the order of their first image.

    Args:
        good_images: The images.
        categories: The category of each; None for one category, the model's name.
        name: Of the model.

    Raises:
        DataError: For fewer than two images of a category, and for categories of other images.
    """
    require_enough(len(good_images), of=name)
    if categories is None:
        return {name: list(good_images)}
    if len(categories) != len(good_images):
        raise DataError(
            f"{len(categories)} categories for {len(good_images)} good images: give one of each image"
        )
    groups: dict[str, list[ImageLike]] = {}
    for category, image in zip(categories, good_images, strict=True):
        groups.setdefault(category, []).append(image)
    for category, images in groups.items():
        require_enough(len(images), of=category)
    return groups


def leave_out_copies(
    groups: dict[str, list[ImageLike]],
    settings: FitSettings,
    threads: int | None,
    *,
    skip_bad: bool,
    max_pixels: int,
) -> dict[str, DistinctImages]:
    """Leave out copies of images within each category.

    Args:
        groups: Images by category.
        settings: Of the fit.
        threads: That read images; None for all cores.
        skip_bad: Leave out images that cannot be read, with a warning.
        max_pixels: Files with more pixels are not decoded.

    Raises:
        DataError: For fewer than two different images of a category.
        ImageError: An image cannot be read, unless `skip_bad`.
    """
    distinct = {
        category: distinct_images(
            images,
            of=category,
            white_level=settings.input.white_level,
            workers=threads or available_threads(),
            skip_bad=skip_bad,
            max_pixels=max_pixels,
        )
        for category, images in groups.items()
    }
    for category, found in distinct.items():
        require_enough(len(found.images), of=category)
    return distinct


def shape_input(settings: FitSettings, image_shapes: Sequence[tuple[int, int]]) -> FitSettings:
    """Give a network's input the images' aspect, and the number of pixels that the settings ask for; long images tiles.

    Height and width that the settings state stay as they are, as do tiles and the square of a backbone that takes no
    other shape.

    Args:
        settings: Of the fit.
        image_shapes: Height and width of the good images that can be read.
    """
    options = settings.input
    if isinstance(options.image_size, tuple):
        return settings
    if options.tiling.count > 1 or not image_shapes or backbones.takes_one_size(settings.features.backbone):
        is_open = options.image_size == "auto"
        return settings.with_values({"input.image_size": options.network_shape}) if is_open else settings
    shape = find_input_shape(image_shapes, options.image_size, tile_overlap=options.tile_overlap)
    if shape.is_mixed:
        warnings.warn(
            f"the good images differ in aspect, so all are resized to a square of {shape.image_size[0]} pixels; "
            "a fit for each shape of part, or --image-size HxW, may find more",
            stacklevel=2,
        )
    return settings.with_values({"input.image_size": shape.image_size, "input.tiles": shape.tiles})


def fit_categories(groups: dict[str, list[ImageLike]], context: FitContext) -> tuple[CategoryFit, ...]:
    """Fit each category by itself. Where there are several, progress names the category."""
    longest = max(map(len, groups))
    fits = []
    for category, images in groups.items():
        prefixed = PrefixedProgress(context.progress, f"{category:<{longest}}")
        progress = prefixed if len(groups) > 1 else context.progress
        fits.append(fit_category(category, images, replace(context, progress=progress)))
    return tuple(fits)


def drop_unused_scales(
    fits: Sequence[CategoryFit],
    backbone: Backbone,
    context: FitContext,
    open_with: Callable[[FitSettings], Backbone],
) -> tuple[Backbone, FitContext]:
    """Leave the image at half its size out of backbone and settings where no category's energy uses it."""
    if max(fit.num_channels for fit in fits) == context.scales[-1].stop:
        return backbone, context
    settings = context.settings.with_values({"features.coarse_strides": ()})
    backbone = open_with(settings)
    return backbone, replace(
        context, settings=settings, session=backbone.session, scales=backbone.extractor.scales
    )


def build_head(
    fits: Sequence[CategoryFit], context: FitContext, *, units: Sequence[float] | None = None
) -> EnergyHead:
    """Build the head of one category, or of several with a classifier that picks one of them.

    Args:
        fits: One for each category.
        context: Of the fit.
        units: A divisor of each category's energies; 1 each where None.
    """
    settings = context.settings
    energy: ImageEnergy = fits[0].energy
    if len(fits) > 1:
        num_channels = max(fit.num_channels for fit in fits)
        classifier = fit_category_classifier([fit.embeddings()[:, :num_channels] for fit in fits])
        energy = stack_categories([fit.energy for fit in fits], classifier, units=units)
    return EnergyHead(
        energy,
        grid=context.grid,
        smoothing=settings.heatmap.smoothing,
        contrast=settings.heatmap.contrast,
        tiles=settings.input.tiling,
        mask=None if context.roi_mask is None else torch.from_numpy(context.roi_mask),
    ).eval()
