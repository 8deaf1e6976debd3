"""What a report shows: results, with small pictures of the images they are of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from energyad.data.datasets import TestItem
from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage
from energyad.errors import ImageError
from energyad.evaluation.evaluate import Evaluation
from energyad.images import reading
from energyad.line.drift import WINDOW, Drift, compare
from energyad.line.journal import JournalLine, drift_of
from energyad.model.manifest import Manifest
from energyad.model.statistics import PartStatistics
from energyad.progress import NullProgress, Progress
from energyad.report.overlays import overlay_of
from energyad.report.sheet import fit_tile
from energyad.scoring.results import ImageResult, rank

MAX_PICTURED: Final = 1000
"""Images whose pictures a page holds: those of the highest scores."""
_SIDES: Final = ((120, 224), (400, 160), (MAX_PICTURED, 112))
"""Up to so many images, so many pixels a picture: a page stays below some 20 MB."""
_QUALITY: Final = 82


@dataclass(frozen=True)
class ReportImage:
    """One image of a page: its result, and pictures small enough that a page can hold hundreds.

    Attributes:
        result: What the model says of the image.
        defect_type: Its label; None where it has none.
        pictures: Names and JPEG bytes; empty where the image is not at hand.
    """

    result: ImageResult
    defect_type: str | None
    pictures: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Report:
    """What a page shows.

    Attributes:
        manifest: The model's.
        images: Highest score first, unreadable ones last.
        evaluation: None where the images are not labelled.
        drift: None where nothing is known of it.
    """

    manifest: Manifest
    images: tuple[ReportImage, ...]
    evaluation: Evaluation | None
    drift: Drift | None


def of_images(
    detector: AnomalyDetector, paths: Sequence[Path], *, progress: Progress | None = None
) -> Report:
    """Score images for a page. Images that cannot be read are listed with the reason."""
    scored = _score(detector, paths, [None] * len(paths), progress or NullProgress())
    parts = [part for _, part in scored if part is not None]
    drift = _drift(detector.manifest, parts)
    return Report(detector.manifest, _ranked(image for image, _ in scored), None, drift)


def of_category(
    detector: AnomalyDetector, evaluation: Evaluation, *, progress: Progress | None = None
) -> Report:
    """Score an evaluation's test images again, for their pictures. Drift is measured on the good ones alone."""
    items = evaluation.items
    scored = _score(detector, [item.path for item in items], items, progress or NullProgress())
    good = [
        part
        for (_, part), item in zip(scored, items, strict=True)
        if part is not None and not item.is_defective
    ]
    drift = _drift(detector.manifest, good)
    return Report(detector.manifest, _ranked(image for image, _ in scored), evaluation, drift)


def of_results(
    lines: Sequence[JournalLine],
    manifest: Manifest,
    *,
    source: Path,
    images_in: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Show results that exist already: regions as they were found, without heatmaps; nothing is scored.

    Args:
        lines: The results.
        manifest: The model's.
        source: The results file; images are looked for from here and from beside it.
        images_in: Where else images are looked for, such as the folder that `watch` moved them to.
        progress: Called at each image.

    Raises:
        DataError: No line is of this model.
    """
    progress = progress or NullProgress()
    drift = drift_of(lines, manifest, source=str(source))
    ranked = sorted(lines, key=rank)
    side, images = side_for(len(ranked)), list[ReportImage]()
    progress.stage("pictures", len(ranked))
    for position, line in enumerate(ranked):
        is_pictured = position < MAX_PICTURED and line.score is not None
        path = _find(line, source, images_in) if is_pictured else None
        pictures = () if path is None else _pictures_of_result(line, path, manifest, side)
        images.append(ReportImage(line, None, pictures))
        progress.advance()
    return Report(manifest, tuple(images), None, drift)


def side_for(count: int) -> int:
    """Pixels a side of the pictures of that many images."""
    return next((side for most, side in _SIDES if count <= most), _SIDES[-1][1])


def _drift(manifest: Manifest, parts: Sequence[PartStatistics]) -> Drift:
    return compare(manifest.good_parts, parts[-WINDOW:], model=manifest.name)


def _ranked(images: Iterable[ReportImage]) -> tuple[ReportImage, ...]:
    """Highest score first; those beyond MAX_PICTURED lose their pictures."""
    ranked = sorted(images, key=lambda image: rank(image.result))
    without_pictures = (replace(image, pictures=()) for image in ranked[MAX_PICTURED:])
    return (*ranked[:MAX_PICTURED], *without_pictures)


def _score(
    detector: AnomalyDetector, paths: Sequence[Path], items: Sequence[TestItem | None], progress: Progress
) -> list[tuple[ReportImage, PartStatistics | None]]:
    """Score images in their order; their labels are those of the items."""
    side, scored = side_for(len(paths)), list[tuple[ReportImage, PartStatistics | None]]()
    progress.stage("report", len(paths))
    for image, item in zip(detector.score_images(paths), items, strict=True):
        progress.advance()
        label = None if item is None else item.defect_type
        if isinstance(image, ScoredImage):
            pictures = tuple(_pictures(image, item, side))
            scored.append((ReportImage(image.result(), label, pictures), image.statistics))
        else:
            scored.append((ReportImage(image.result(), label, ()), None))
    return scored


def _pictures(image: ScoredImage, item: TestItem | None, side: int) -> Iterator[tuple[str, bytes]]:
    small = fit_tile(image.pixels, side)
    heatmap = reading.resize_map(image.prediction.heatmap, *small.shape[:2])
    yield "image", _jpeg(small)
    yield "heatmap", _jpeg(overlay_of(small, replace(image.prediction, heatmap=heatmap)))
    if item is not None and item.mask is not None:
        mask = item.read_mask(image.pixels.shape[:2])
        yield "mask", _jpeg(fit_tile(mask.astype(np.uint8) * 255, side))


def _find(line: JournalLine, source: Path, images_in: Path | None) -> Path | None:
    named = Path(line.image or "")
    places = [named, source.parent / named]
    if images_in is not None:
        below = Path(line.file.path if line.file is not None else named.name)
        places += [images_in / below, images_in / (line.verdict or "unreadable") / below]
    return next((candidate for candidate in places if candidate.is_file()), None)


def _pictures_of_result(
    line: JournalLine, path: Path, manifest: Manifest, side: int
) -> tuple[tuple[str, bytes], ...]:
    """Pictures of an image that was scored earlier, its regions outlined; none where it is another by now."""
    try:
        pixels = reading.read_image(path, white_level=manifest.input.white_level)
    except ImageError:
        return ()
    if pixels.shape[:2] != (line.height, line.width):
        return ()
    small = fit_tile(pixels, side)
    return ("image", _jpeg(small)), ("regions", _jpeg(_outlined(small, line)))


def _outlined(small: UInt8[np.ndarray, "h w 3"], line: ImageResult) -> UInt8[np.ndarray, "h w 3"]:
    """Regions as white lines with a dark edge, to be seen on any image."""
    drawn = (small * 0.75).astype(np.uint8)
    factor = small.shape[1] / (line.width or small.shape[1])
    corners = [
        np.round((np.array(region.polygon) + 0.5) * factor).astype(np.int32) for region in line.regions
    ]
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.polylines(drawn, corners, True, colour, width)
    return drawn


def _jpeg(picture: UInt8[np.ndarray, "h w *c"]) -> bytes:
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
