"""A finished fit as a model folder: its files, and the manifest that describes them."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass

import safetensors.torch

from energyad.fitting.backbone import Backbone
from energyad.fitting.category import CategoryFit
from energyad.fitting.threshold import FitCalibration
from energyad.graphs import export
from energyad.graphs.weights import save_beside
from energyad.model import provenance
from energyad.model.architecture import Architecture
from energyad.model.assembly import architecture_of
from energyad.model.card import model_card
from energyad.model.folder import BACKBONE_FILE, CARD_FILE, GRAPH_FILE, HEAD_FILE
from energyad.model.manifest import InputSpec, Manifest, Provenance, RoiSpec
from energyad.scoring.scorer import EnergyHead
from energyad.settings import FitSettings


@dataclass(frozen=True, eq=False)
class FinishedFit:
    """All that a model folder is made of.

    Attributes:
        name: Of the model.
        settings: Of the fit.
        backbone: The backbone that the head stands on.
        fits: One for each category.
        head: The finished head.
        calibration: The thresholds, and what they rest on.
        roi: The region of interest; None for the whole image.
        image_digests: Of the good images, by which they are known again.
    """

    name: str
    settings: FitSettings
    backbone: Backbone
    fits: Sequence[CategoryFit]
    head: EnergyHead
    calibration: FitCalibration
    roi: RoiSpec | None
    image_digests: tuple[str, ...]


def package(
    finished: FinishedFit, *, threads: int | None, started: float
) -> tuple[Manifest, dict[str, bytes]]:
    """Export a finished fit and describe it.

    Args:
        finished: The fit.
        threads: Threads of its backbone, for the record.
        started: When the fit started, by `time.perf_counter`.

    Returns:
        The manifest, and the files of the model folder by name.
    """
    fits = finished.fits
    files = model_files(finished)
    record = provenance.collect(
        [image for fit in fits for image in fit.images],
        image_digests=finished.image_digests,
        num_held_out=sum(len(fit.split.held_out) for fit in fits),
        held_out_digests=_held_out_digests(finished),
        held_out_points=fits[0].held_out_points if len(fits) == 1 else (),
        num_rotated=sum(fit.rotated.count for fit in fits),
        seed=finished.settings.seed,
        threads=threads,
        fit_seconds=time.perf_counter() - started,
        white_level=finished.settings.input.white_level,
    )
    manifest = describe(finished, record)
    return manifest, files | {CARD_FILE: model_card(manifest).encode()}


def _held_out_digests(finished: FinishedFit) -> list[str]:
    """Of a model of one category, whose digests are those of its images, one by one."""
    if len(finished.fits) > 1 or len(finished.image_digests) != len(finished.fits[0].images):
        return []
    return [finished.image_digests[index] for index in finished.fits[0].split.held_out]


def model_files(finished: FinishedFit) -> dict[str, bytes]:
    """Return the tensors and the whole graph, by the names of their files.

    The backbone's tensors are there in float32 only: of one in integers, only the graph is of use.
    """
    options, backbone = finished.settings.input, finished.backbone
    num_channels = max(fit.num_channels for fit in finished.fits)
    tiled = export.with_tiles(backbone.graph, options.tiling, tile_size=options.network_shape)
    graph = export.join(tiled, export.export_head(finished.head, num_channels=num_channels))
    files = {
        HEAD_FILE: safetensors.torch.save(dict(finished.head.state_dict())),
        GRAPH_FILE: graph.SerializeToString(),
    }
    if finished.settings.features.precision == "float32":
        files[BACKBONE_FILE] = save_beside(graph, backbone.extractor.backbone.state_dict())
    return files


def describe(finished: FinishedFit, record: Provenance) -> Manifest:
    """Return the manifest of a finished fit.

    Args:
        finished: The fit.
        record: Its images, versions and times.
    """
    settings, fits = finished.settings, finished.fits
    trainings = [training for fit in fits for training in fit.trainings]
    return Manifest(
        name=finished.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        input=InputSpec(
            image_size=settings.input.network_shape,
            tiles=settings.input.tiling,
            white_level=settings.input.white_level,
        ),
        backbone=finished.backbone.extractor.weights,
        architecture=describe_architecture(finished.head, settings),
        categories=tuple(fit.name for fit in fits) if len(fits) > 1 else (),
        roi=finished.roi,
        calibration=finished.calibration.calibration,
        good_parts=tuple(finished.calibration.parts),
        settings=settings.to_dict(),
        provenance=record,
        history=[entry for training in trainings for entry in training.history_dicts()],
        training_health=tuple(training.health for training in trainings if training.health is not None),
    )


def describe_architecture(head: EnergyHead, settings: FitSettings) -> Architecture:
    """Return the shapes of a fitted head's networks, and how its features and heatmaps are made."""
    return architecture_of(
        head.patch_energy,
        precision=settings.features.precision,
        strides=settings.features.strides,
        coarse_strides=settings.features.coarse_strides,
        border_margin=settings.features.border_margin,
        smoothing=settings.heatmap.smoothing,
        contrast=settings.heatmap.contrast,
    )
