"""From images of good parts to a model: features, latents, energy, graph, threshold, provenance."""

from __future__ import annotations

import contextlib
import datetime
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import safetensors.torch
import torch

from energyad import detector, drift, provenance
from energyad.backbones import BackboneWeights
from energyad.calibration import Calibration, calibrate
from energyad.card import model_card
from energyad.copies import Turned, relit_features, turned_copies
from energyad.errors import DataError
from energyad.extraction import GoodFeatures, extract, require_enough, some_pixels, work_on
from energyad.features import load_extractor
from energyad.heads import fit_head, gather_patches, renew_prototypes
from energyad.manifest import BackboneSpec, CalibrationSpec, InputSpec, Manifest, Provenance, TileSpec
from energyad.progress import Progress, Silent
from energyad.roi import AreaSource, judge
from energyad.runtimes import export
from energyad.runtimes.cache import extractor_graph
from energyad.runtimes.onnx import OnnxFeatures, OnnxRuntime
from energyad.runtimes.plan import default_plan
from energyad.runtimes.quantisation import quantise
from energyad.scorer import EnergyHead
from energyad.settings import FitSettings
from energyad.training import TrainedEnergy

ENOUGH_HELD_OUT = 20
MOST_WATCHED = 100  # held-out images whose patches training looks at


def fit_model(
    good_images: Sequence[detector.ImageLike],
    *,
    name: str,
    categories: Sequence[str] | None = None,
    settings: FitSettings | None = None,
    backbone_weights: Path | None = None,
    threads: int | None = None,
    roi: AreaSource | None = None,
    ignore: AreaSource | None = None,
    any_direction: bool | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> tuple[Manifest, dict[str, bytes]]:
    """Fit on images of good parts; see `AnomalyDetector.fit`. Returns what a model folder holds."""
    settings, progress = settings or FitSettings(), progress or Silent()
    judged = judge(settings.input_shape, roi=roi, ignore=ignore)
    started = time.perf_counter()
    require_enough(len(good_images))
    of_each = categories_of(good_images, categories, name=name)
    generator = torch.Generator().manual_seed(settings.seed)
    progress.stage("backbone", 1)
    extractor = load_extractor(
        settings.backbone,
        image_size=settings.image_size,
        strides=settings.strides,
        weights_file=backbone_weights,
    )
    backbone_graph = extractor_graph(extractor)
    if settings.precision == "int8":
        pixels = some_pixels(good_images, settings=settings, skip_bad=skip_bad)
        backbone_graph = quantise(backbone_graph, pixels, name=settings.backbone)
    session = OnnxFeatures(backbone_graph.SerializeToString(), threads=threads or 0)
    good = extract(good_images, session, settings=settings, skip_bad=skip_bad, progress=progress)
    require_enough(len(good.kept))
    fitted, held_out = split(len(good.kept), settings=settings, generator=generator)
    kept_images = [good_images[place] for place in good.kept]
    kept_categories = [of_each[place] for place in good.kept]
    turned = turned_copies(
        good,
        kept_images,
        kept_categories,
        session,
        num_fitted=len(fitted),
        any_direction=any_direction,
        settings=settings,
        progress=progress,
    )
    relit = relit_features([kept_images[i] for i in fitted], session, settings=settings, progress=progress)
    with single_thread():
        head, trainings = fit_head(
            turned.beside(gather_patches(good.features, fitted, generator=generator), fitted),
            gather_patches(relit.features, range(len(relit.kept)), generator=generator),
            gather_patches(good.features, held_out[:MOST_WATCHED], generator=generator),
            [kept_categories[i] for i in fitted],
            extractor.grid,
            settings,
            generator,
            progress,
        )
    head.mask = None if judged.mask is None else torch.from_numpy(judged.mask)
    tiled = export.with_tiles(backbone_graph, settings.cut(), side=settings.image_size)

    def graph_of(head: EnergyHead) -> bytes:
        whole = export.join(tiled, export.export_head(head, num_channels=good.features.shape[-1]))
        return whole.SerializeToString()

    graph, plan = graph_of(head), default_plan(threads, tiles=settings.cut().count)
    kept_back = [kept_images[i] for i in held_out]
    calibration, parts = calibrate_on(kept_back, OnnxRuntime(graph, plan=plan), settings, progress)
    if not calibration.certifies and settings.num_prototypes > 0 and len(fitted) > 1:
        # Its thresholds are estimates anyway. Where one is a promise, it holds of a model that knows none of its parts.
        # Of one fitted image no radii are known, and its threshold would have other units.
        head = with_all_parts(head, good, turned, kept_categories, settings=settings, progress=progress)
        graph = graph_of(head)
    good.discard()
    relit.discard()
    contents = {
        detector.BACKBONE_FILE: safetensors.torch.save(dict(extractor.backbone.state_dict())),
        detector.HEAD_FILE: safetensors.torch.save(dict(head.state_dict())),
        detector.GRAPH_FILE: graph,
    }
    made = provenance.collect(
        kept_images,
        num_held_out=len(held_out),
        num_turned=turned.count,
        seed=settings.seed,
        threads=threads,
        fit_seconds=time.perf_counter() - started,
    )
    manifest = describe(name, settings, extractor.weights, calibration, made, trainings)
    manifest = manifest.model_copy(update={"good_parts": drift.good_parts(parts), "area": judged.spec})
    return manifest, contents | {detector.CARD_FILE: model_card(manifest).encode()}


def categories_of(
    good_images: Sequence[detector.ImageLike], categories: Sequence[str] | None, *, name: str
) -> Sequence[str]:
    """The category of each image, which is `name` where none is given. Raises DataError where some have none."""
    if categories is None:
        return [name] * len(good_images)
    if len(categories) != len(good_images):
        raise DataError(
            f"{len(categories)} categories for {len(good_images)} good images: give one of each image"
        )
    return categories


def describe(
    name: str,
    settings: FitSettings,
    weights: BackboneWeights,
    calibration: Calibration,
    made: Provenance,
    trainings: Sequence[TrainedEnergy],
) -> Manifest:
    """The manifest of a finished fit."""
    return Manifest(
        name=name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        input=InputSpec(
            image_size=settings.image_size,
            tiles=TileSpec(**vars(settings.cut())),
            white_level=settings.white_level,
        ),
        backbone=BackboneSpec(**vars(weights)),
        calibration=CalibrationSpec(**vars(calibration)),
        settings=settings.to_dict(),
        provenance=made,
        history=[record for training in trainings for record in training.history_dicts()],
    )


def split(count: int, *, settings: FitSettings, generator: torch.Generator) -> tuple[list[int], list[int]]:
    """Images to fit on and images held out for the threshold: at least one of each.

    Twenty held out are enough for a prediction limit, so larger sets give training a larger share.
    """
    order = torch.randperm(count, generator=generator).tolist()
    share = settings.holdout * count
    num_held_out = max(1, round(min(share, max(ENOUGH_HELD_OUT, share / 2))))
    return sorted(order[num_held_out:]), sorted(order[:num_held_out])


def with_all_parts(
    head: EnergyHead,
    good: GoodFeatures,
    turned: Turned,
    categories: Sequence[str],
    *,
    settings: FitSettings,
    progress: Progress,
) -> EnergyHead:
    """The head with prototypes of all good images, those that were held out for the threshold included."""
    generator = torch.Generator().manual_seed(settings.seed)  # however many numbers the training has drawn
    places = range(len(good.kept))
    patches = turned.beside(gather_patches(good.features, places, generator=generator), places)
    with single_thread():
        return renew_prototypes(head, patches, categories, settings, generator, progress)


def calibrate_on(
    held_out: Sequence[detector.ImageLike], runtime: OnnxRuntime, settings: FitSettings, progress: Progress
) -> tuple[Calibration, list[drift.Observation]]:
    """The threshold, from the scores that the finished graph gives held-out good images, and their statistics."""
    progress.stage("threshold", len(held_out))
    parts: list[drift.Observation] = []
    work = functools.partial(drift.observe_batch, runtime=runtime)
    for places, found in work_on(
        held_out, work, settings=settings, skip_bad=False, workers=runtime.plan.workers
    ):
        parts += found
        progress.advance(len(places))
    scores = [part.score for part in parts]
    calibration = calibrate(
        scores, false_reject_rate=settings.false_reject_rate, review_rate=settings.review_rate
    )
    return calibration, parts


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Small networks are fastest on one thread, and one thread adds up in one order: the same bits every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
