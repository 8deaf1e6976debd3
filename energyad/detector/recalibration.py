"""New thresholds for a fitted model from new good parts: a new camera position or lamp, or simply more parts."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import UnreadableImage
from energyad.errors import DataError
from energyad.images.identity import pixel_digest
from energyad.images.prefetch import skip_or_raise
from energyad.images.reading import ImageLike
from energyad.model import provenance, statistics
from energyad.model.card import model_card
from energyad.model.folder import CARD_FILE
from energyad.model.manifest import Manifest
from energyad.progress import NullProgress, Progress
from energyad.scoring.calibration import Calibration, calibrate


def recalibrate(
    detector: AnomalyDetector,
    good_images: Sequence[ImageLike],
    *,
    false_reject_rate: float | None = None,
    review_rate: float | None = None,
    skip_bad: bool = False,
    progress: Progress | None = None,
) -> AnomalyDetector:
    """Return the same model with thresholds from these images alone; nothing is fitted, and old thresholds are kept.

    Args:
        detector: The model.
        good_images: Of good parts. Those of the fit, and copies, are left out and counted in a warning.
        false_reject_rate: Share of good parts that may be ng; the model's own where None.
        review_rate: Share of good parts that may be ng or for review; the model's own where None.
        skip_bad: Leave out images that cannot be read, with a warning.
        progress: Called at each image.

    Raises:
        DataError: No image can be used.
        ImageError: An image cannot be read, unless `skip_bad`.
        SettingsError: Illegal rates.
    """
    manifest = detector.manifest
    parts, sources = _measure(detector, good_images, skip_bad=skip_bad, progress=progress or NullProgress())
    digest = provenance.data_hash(sources, white_level=manifest.input.white_level)
    rates = rates_for(manifest, false_reject_rate=false_reject_rate, review_rate=review_rate)
    calibration = calibrate([part.score for part in parts], **rates)
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    new = manifest.replace(
        calibration=replace(calibration, created=created, data_sha256=digest),
        previous_calibrations=(*manifest.previous_calibrations, with_date(manifest)),
        good_parts=tuple(parts),
    )
    contents = {**detector.contents, CARD_FILE: model_card(new).encode()}
    return AnomalyDetector(new, contents, detector.runtime)


def rates_for(
    manifest: Manifest, *, false_reject_rate: float | None, review_rate: float | None
) -> dict[str, Any]:
    """Return both rates: the model's own where none is given; no review where a new reject rate exceeds its rate."""
    current = manifest.calibration
    rate = current.false_reject_rate if false_reject_rate is None else false_reject_rate
    if review_rate is None and current.review_rate is not None and current.review_rate >= rate:
        review_rate = current.review_rate
    return {"false_reject_rate": rate, "review_rate": review_rate}


def with_date(manifest: Manifest) -> Calibration:
    """Return the model's calibration with its date and data: those of the fit where it has none of its own."""
    calibration = manifest.calibration
    if calibration.created is not None:
        return calibration
    return replace(calibration, created=manifest.created, data_sha256=manifest.provenance.data_sha256)


def _measure(
    detector: AnomalyDetector, good_images: Sequence[ImageLike], *, skip_bad: bool, progress: Progress
) -> tuple[list[statistics.PartStatistics], list[ImageLike]]:
    """Measure the images; return the statistics of those that can be read, and these images."""
    progress.stage("scoring", len(good_images))
    fitted, seen = frozenset(detector.manifest.provenance.image_digests), set[str]()
    num_fitted = num_copies = 0
    parts: list[statistics.PartStatistics] = []
    sources: list[ImageLike] = []
    for image in detector.score_images(good_images):
        progress.advance()
        if isinstance(image, UnreadableImage):
            skip_or_raise(image.error, skip_bad=skip_bad)
            continue
        digest = pixel_digest(image.pixels)
        if digest in fitted:
            num_fitted += 1
        elif digest in seen:
            num_copies += 1
        else:
            seen.add(digest)
            parts.append(image.statistics)
            sources.append(image.source)
    for count, reason in (
        (num_fitted, "were in the fit, which knows them"),
        (num_copies, "are copies of others"),
    ):
        if count:
            text = f"{count} of {len(good_images)} images {reason}: they say nothing of new parts and are left out"
            warnings.warn(text, stacklevel=3)
    if not parts:
        raise DataError(
            f"none of {len(good_images)} images can be used; give images of good parts that were not in the fit"
        )
    return parts, sources
