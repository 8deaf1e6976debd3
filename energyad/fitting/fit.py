"""From images of good parts to a model: features, latents, energy, graph, threshold, provenance."""

from __future__ import annotations

import datetime
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Bool

from energyad.energy.categories import stack_categories
from energyad.energy.patch_energy import ImageEnergy
from energyad.errors import DataError
from energyad.features.backbone_spec import BackboneSpec
from energyad.features.grids import Grid
from energyad.fitting.category import (
    CategoryFit,
    fit_category,
    fit_category_classifier,
    require_enough,
    single_thread,
)
from energyad.fitting.extraction import open_backbone
from energyad.fitting.roi import RoiSource, judge
from energyad.fitting.threshold import calibrate_on
from energyad.fitting.training import TrainedEnergy
from energyad.graphs import export
from energyad.graphs.weights import save_beside
from energyad.images.reading import ImageLike
from energyad.model import provenance
from energyad.model.architecture import Architecture
from energyad.model.assembly import architecture_of
from energyad.model.card import model_card
from energyad.model.folder import BACKBONE_FILE, CARD_FILE, GRAPH_FILE, HEAD_FILE
from energyad.model.manifest import InputSpec, Manifest, PartStatistics, Provenance, RoiSpec
from energyad.progress import NullProgress, PrefixedProgress, Progress
from energyad.scoring.calibration import Calibration
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
    progress: Progress | None = None,
) -> tuple[Manifest, dict[str, bytes]]:
    """Fit on images of good parts; see `AnomalyDetector.fit`. Returns what a model folder holds."""
    settings, progress = settings or FitSettings(), progress or NullProgress()
    judged = judge(settings.input.shape, roi=roi, ignore=ignore)
    started = time.perf_counter()
    require_enough(len(good_images), of=name)
    groups = by_category(good_images, categories, name=name)
    for category, images in groups.items():
        require_enough(len(images), of=category)
    progress.stage("backbone", 1)
    open_for = functools.partial(
        open_backbone, good_images, weights_file=backbone_weights, threads=threads, skip_bad=skip_bad
    )
    extractor, backbone_graph, session = open_for(settings)
    progresses = of_each_category(progress, list(groups))
    fits = tuple(
        fit_category(
            category,
            images,
            session,
            grid=extractor.grid,
            scales=extractor.scales,
            settings=settings,
            skip_bad=skip_bad,
            progress=told,
            mask=judged.mask,
        )
        for (category, images), told in zip(groups.items(), progresses, strict=True)
    )
    if num_channels(fits) < extractor.scales[-1].stop:  # what nobody is judged by need not be computed
        settings = settings.with_values({"features.coarse_strides": ()})
        extractor, backbone_graph, session = open_for(settings)
    head = head_of(fits, extractor.grid, settings, mask=judged.mask)
    with single_thread():
        units, calibration, parts = calibrate_on(fits, head, session, settings, progress)
    # Its energies only fall: what was promised of a model that knew none of its threshold's parts holds of this one.
    fits = tuple(each.with_held_out(settings=settings) for each in fits)
    head = head_of(fits, extractor.grid, settings, units=units, mask=judged.mask)
    tiled = export.with_tiles(backbone_graph, settings.input.tiling, side=settings.input.image_size)
    graph = export.join(tiled, export.export_head(head, num_channels=num_channels(fits)))
    for each in fits:
        each.discard()
    contents = {
        HEAD_FILE: safetensors.torch.save(dict(head.state_dict())),
        GRAPH_FILE: graph.SerializeToString(),
    }
    if settings.features.precision == "float32":  # of one in integers only the graph is of use
        contents[BACKBONE_FILE] = save_beside(graph, extractor.backbone.state_dict())
    made = provenance.collect(
        [image for each in fits for image in each.images],
        num_held_out=sum(len(each.held_out) for each in fits),
        num_turned=sum(each.turned.count for each in fits),
        seed=settings.seed,
        threads=threads,
        fit_seconds=time.perf_counter() - started,
    )
    trainings = [training for each in fits for training in each.trainings]
    manifest = describe(
        name,
        settings,
        backbone=extractor.weights,
        architecture=describe_architecture(head, settings),
        categories=tuple(groups) if len(groups) > 1 else (),
        roi=judged.spec,
        calibration=calibration,
        good_parts=parts,
        provenance=made,
        trainings=trainings,
    )
    return manifest, contents | {CARD_FILE: model_card(manifest).encode()}


def num_channels(fits: Sequence[CategoryFit]) -> int:
    """Channels that any of these categories is judged by, the first ones of all."""
    return max(each.scales[-1].stop for each in fits)


def by_category(
    good_images: Sequence[ImageLike], categories: Sequence[str] | None, *, name: str
) -> dict[str, list[ImageLike]]:
    """The images of each category, all under `name` where none is given. Raises DataError where some have none."""
    if categories is None:
        return {name: list(good_images)}
    if len(categories) != len(good_images):
        raise DataError(
            f"{len(categories)} categories for {len(good_images)} good images: give one of each image"
        )
    groups: dict[str, list[ImageLike]] = {}
    for category, image in zip(categories, good_images, strict=True):
        groups.setdefault(category, []).append(image)
    return groups


def of_each_category(progress: Progress, categories: Sequence[str]) -> Sequence[Progress]:
    """For each category one that names it; where there is but one, as it is."""
    if len(categories) == 1:
        return [progress]
    longest = max(map(len, categories))
    return [PrefixedProgress(progress, f"{category:<{longest}}") for category in categories]


def head_of(
    fits: Sequence[CategoryFit],
    grid: Grid,
    settings: FitSettings,
    *,
    units: Sequence[float] | None = None,
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> EnergyHead:
    """The head of one category's expert, or of several and the rule that tells which to ask; see `CategoryMixture`."""
    tiles, judged = settings.input.tiling, None if mask is None else torch.from_numpy(mask)
    energy: ImageEnergy = fits[0].judge
    if len(fits) > 1:
        classifier = fit_category_classifier(
            [each.category_embeddings[:, : num_channels(fits)] for each in fits]
        )
        energy = stack_categories([each.judge for each in fits], classifier, units=units)
    return EnergyHead(
        energy,
        grid=grid,
        smoothing=settings.heatmap.smoothing,
        contrast=settings.heatmap.contrast,
        tiles=tiles,
        mask=judged,
    ).eval()


def describe_architecture(head: EnergyHead, settings: FitSettings) -> Architecture:
    """The shapes of a fitted head's networks."""
    return architecture_of(
        head.patch_energy,
        precision=settings.features.precision,
        strides=settings.features.strides,
        coarse_strides=settings.features.coarse_strides,
        border_margin=settings.features.border_margin,
        smoothing=settings.heatmap.smoothing,
        contrast=settings.heatmap.contrast,
    )


def describe(
    name: str,
    settings: FitSettings,
    *,
    backbone: BackboneSpec,
    architecture: Architecture,
    categories: tuple[str, ...],
    roi: RoiSpec | None,
    calibration: Calibration,
    good_parts: Sequence[PartStatistics],
    provenance: Provenance,
    trainings: Sequence[TrainedEnergy],
) -> Manifest:
    """The manifest of a finished fit."""
    return Manifest(
        name=name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        input=InputSpec(
            image_size=settings.input.image_size,
            tiles=settings.input.tiling,
            white_level=settings.input.white_level,
        ),
        backbone=backbone,
        architecture=architecture,
        categories=categories,
        roi=roi,
        calibration=calibration,
        good_parts=tuple(good_parts),
        settings=settings.to_dict(),
        provenance=provenance,
        history=[record for training in trainings for record in training.history_dicts()],
        training_health=tuple(training.health for training in trainings if training.health is not None),
    )
