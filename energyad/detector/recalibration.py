"""New thresholds for a fitted model from new good parts: a new camera position or lamp, or simply more parts."""

from __future__ import annotations

import datetime
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.images import reading
from energyad.images.prefetch import prefetch_map, readable
from energyad.images.reading import ImageLike
from energyad.model import provenance, statistics
from energyad.model.card import model_card
from energyad.model.folder import CARD_FILE
from energyad.model.manifest import CalibrationSpec, Manifest
from energyad.progress import NullProgress, Progress
from energyad.scoring.calibration import calibrate


def recalibrate(
    detector: AnomalyDetector,
    good_images: Sequence[ImageLike],
    *,
    false_reject_rate: float | None = None,
    review_rate: float | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> AnomalyDetector:
    """The same model with thresholds that rest on these images alone. Nothing is fitted; the old ones are kept.

    The images must be of good parts that the model was not fitted on, or its promise does not hold. Rates: those
    the model has, where None. Raises DataError for no usable image, ImageError for a bad one unless `skip_bad`,
    SettingsError for illegal rates.
    """
    manifest = detector.manifest
    parts, kept = _measure(detector, good_images, skip_bad=skip_bad, progress=progress or NullProgress())
    digest = provenance.data_hash(kept)
    if digest == manifest.provenance.data_sha256:
        text = "these are the images the model was fitted on: it knows them, so new parts will score higher"
        warnings.warn(text, stacklevel=2)
    rates = rates_for(manifest, false_reject_rate=false_reject_rate, review_rate=review_rate)
    calibration = calibrate([part.score for part in parts], **rates)
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    new = manifest.model_copy(
        update={
            "calibration": CalibrationSpec(**vars(calibration), created=made, data_sha256=digest),
            "previous_calibrations": (*manifest.previous_calibrations, with_date(manifest)),
            "good_parts": tuple(parts),
        }
    )
    contents = {**detector.contents, CARD_FILE: model_card(new).encode()}
    return AnomalyDetector(new, contents, detector.runtime)


def rates_for(
    manifest: Manifest, *, false_reject_rate: float | None, review_rate: float | None
) -> dict[str, Any]:
    """Both rates, the model's own where none is given; its review rate goes where a new reject rate exceeds it."""
    own = manifest.calibration
    rate = own.false_reject_rate if false_reject_rate is None else false_reject_rate
    if review_rate is None and own.review_rate is not None and own.review_rate >= rate:
        review_rate = own.review_rate
    return {"false_reject_rate": rate, "review_rate": review_rate}


def with_date(manifest: Manifest) -> CalibrationSpec:
    """The model's calibration with its date and data, those of the fit where it has none of its own."""
    own = manifest.calibration
    if own.created is not None:
        return own
    made = {"created": manifest.created, "data_sha256": manifest.provenance.data_sha256}
    return own.model_copy(update=made)


def _measure(
    detector: AnomalyDetector, good_images: Sequence[ImageLike], *, skip_bad: bool, progress: Progress
) -> tuple[list[statistics.PartStatistics], list[ImageLike]]:
    """What each image that can be read looks like, and which those are."""
    progress.stage("scoring", len(good_images))

    def read(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
        return reading.resize(detector.read(image), detector.input_shape)

    plan = detector.runtime.plan
    work = functools.partial(
        statistics.measure_batch, runtime=detector.runtime, categories=detector.manifest.categories
    )
    done = prefetch_map(good_images, read, work, batch_size=plan.batch_size, workers=plan.workers)
    parts: list[statistics.PartStatistics] = []
    kept: list[ImageLike] = []
    for each in readable(done, skip_bad=skip_bad):
        parts.append(each.require())
        kept.append(each.item)
        progress.advance()
    if not parts:
        raise DataError(f"none of {len(good_images)} images can be read; give images of good parts")
    return parts, kept
