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
from energyad.detector.batch import inspect_files
from energyad.errors import ImageError
from energyad.evaluation.evaluate import Evaluation
from energyad.images import reading
from energyad.line.drift import WINDOW, Drift, compare
from energyad.line.journal import JournalLine, drift_of
from energyad.model.manifest import Manifest, reference_statistics
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
class Shown:
    """One image. pictures: names and JPEG bytes, none where it is not at hand. defect_type: None if unlabelled."""

    result: ImageResult
    defect_type: str | None
    pictures: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Report:
    """All of a page. evaluation: None where no image is labelled; drift: None where nothing is known of it."""

    manifest: Manifest
    shown: tuple[Shown, ...]
    evaluation: Evaluation | None
    drift: Drift | None


def of_images(
    detector: AnomalyDetector, paths: Sequence[Path], *, progress: Progress | None = None
) -> Report:
    """Score images and show them. Images that cannot be read are listed with the reason."""
    shown, seen = _score(detector, paths, [None] * len(paths), progress or NullProgress())
    parts = [part for part in seen if part is not None]
    return Report(detector.manifest, shown, None, _drift(detector.manifest, parts))


def of_category(
    detector: AnomalyDetector,
    items: Sequence[TestItem],
    evaluation: Evaluation,
    *,
    progress: Progress | None = None,
) -> Report:
    """Show labelled test images. Drift is told from the good ones: defects are no drift."""
    shown, seen = _score(detector, [item.path for item in items], items, progress or NullProgress())
    good = [
        part for part, item in zip(seen, items, strict=True) if part is not None and not item.is_defective
    ]
    return Report(detector.manifest, shown, evaluation, _drift(detector.manifest, good))


def of_results(
    lines: Sequence[JournalLine],
    manifest: Manifest,
    *,
    source: Path,
    images_in: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Show results that are there already: regions as they were found, without heatmaps; nothing is scored.

    source: the results file; images are looked for from here and from beside it. images_in: where else, such as the
    folder that `watch` moved them to. Raises DataError where no line is of this model.
    """
    progress = progress or NullProgress()
    drift = drift_of(lines, manifest, source=str(source))
    ranked = sorted(lines, key=rank)
    side, shown = side_for(len(ranked)), list[Shown]()
    progress.stage("pictures", len(ranked))
    for place, line in enumerate(ranked):
        pictured = place < MAX_PICTURED and line.score is not None
        path = _find(line, source, images_in) if pictured else None
        pictures = () if path is None else _from_file(line, path, manifest, side)
        shown.append(Shown(line, None, pictures))
        progress.advance()
    return Report(manifest, tuple(shown), None, drift)


def side_for(count: int) -> int:
    """Pixels a side of the pictures of that many images."""
    return next((side for most, side in _SIDES if count <= most), _SIDES[-1][1])


def _drift(manifest: Manifest, parts: Sequence[PartStatistics]) -> Drift:
    return compare(reference_statistics(manifest), parts[-WINDOW:], model=manifest.name)


def _score(
    detector: AnomalyDetector, paths: Sequence[Path], items: Iterable[TestItem | None], progress: Progress
) -> tuple[tuple[Shown, ...], list[PartStatistics | None]]:
    """Highest score first; what was observed of each, in the order of the paths."""
    side, shown, seen = side_for(len(paths)), list[Shown](), list[PartStatistics | None]()
    progress.stage("report", len(paths))
    for found, item in zip(inspect_files(detector, paths), items, strict=True):
        progress.advance()
        label = None if item is None else item.defect_type
        prediction, pixels, result = found.prediction, found.pixels, found.result(detector)
        seen.append(found.observation(detector))
        if prediction is None or pixels is None:
            shown.append(Shown(result, label, ()))
            continue
        small = fit_tile(pixels, side)
        heatmap = reading.resize_map(prediction.heatmap, *small.shape[:2])
        pictures = [("image", small), ("heatmap", overlay_of(small, replace(prediction, heatmap=heatmap)))]
        pictures += _mask(item, pixels.shape[:2], side)
        shown.append(Shown(result, label, tuple((name, _jpeg(picture)) for name, picture in pictures)))
    ranked = sorted(shown, key=lambda each: rank(each.result))
    return (*ranked[:MAX_PICTURED], *(replace(each, pictures=()) for each in ranked[MAX_PICTURED:])), seen


def _mask(
    item: TestItem | None, shape: tuple[int, int], side: int
) -> Iterator[tuple[str, UInt8[np.ndarray, "h w"]]]:
    if item is not None and item.mask is not None:
        mask = item.read_mask(shape)
        yield "mask", fit_tile(mask.astype(np.uint8) * 255, side)


def _find(line: JournalLine, source: Path, images_in: Path | None) -> Path | None:
    named = Path(line.image or "")
    places = [named, source.parent / named]
    if images_in is not None:
        below = Path(line.file.path if line.file is not None else named.name)
        places += [images_in / below, images_in / (line.verdict or "unreadable") / below]
    return next((place for place in places if place.is_file()), None)


def _from_file(line: JournalLine, path: Path, manifest: Manifest, side: int) -> tuple[tuple[str, bytes], ...]:
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
