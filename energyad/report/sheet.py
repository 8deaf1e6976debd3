"""One picture of a whole evaluation: images, heatmaps and masks side by side, a row for each kind of test image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image, ImageDraw, ImageFont

from energyad.data.datasets import GOOD
from energyad.detector import AnomalyDetector
from energyad.evaluation.evaluate import Evaluation, ScoredTestItem
from energyad.images import reading
from energyad.report.overlays import ColourScale, colour_bar, overlay

PER_TYPE: Final = 3
_TILE, _GAP, _CAPTION, _LABEL, _HEADER, _FOOTER = 168, 6, 24, 176, 84, 78
_INK, _FAINT, _ALARM, _PAPER = (24, 28, 36), (110, 116, 128), (184, 30, 44), (255, 255, 255)
_EMPTY = (238, 240, 243)
_BAR: Final = 420


@dataclass(frozen=True)
class Example:
    """One test image of the sheet, at its own size.

    Attributes:
        item: The image's label and score.
        image: RGB.
        heatmap: Energies.
        mask: Empty for good parts; None where the data set has none.
    """

    item: ScoredTestItem
    image: UInt8[np.ndarray, "h w 3"]
    heatmap: Float32[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"] | None


def choose(evaluation: Evaluation, *, per_type: int = PER_TYPE) -> Iterator[tuple[str, list[ScoredTestItem]]]:
    """Choose images of each type evenly from the highest to the lowest score, misses included; good parts first."""
    types = sorted({item.defect_type for item in evaluation.items}, key=lambda name: (name != GOOD, name))
    for defect_type in types:
        ranked = sorted(
            (item for item in evaluation.items if item.defect_type == defect_type),
            key=lambda item: -item.score,
        )
        at = np.unique(np.linspace(0, len(ranked) - 1, min(per_type, len(ranked))).round().astype(int))
        yield defect_type, [ranked[index] for index in at]


def load_examples(detector: AnomalyDetector, items: Sequence[ScoredTestItem]) -> list[Example]:
    """Read and score items again, for their heatmaps. Raises ImageError at the first that cannot be read."""
    examples = []
    for item, outcome in zip(items, detector.score_images([item.path for item in items]), strict=True):
        image = outcome.require()
        shape = image.pixels.shape[:2]
        mask = np.zeros(shape, dtype=bool) if item.defect_type == GOOD else None
        if item.mask is not None:
            mask = item.read_mask(shape)
        examples.append(Example(item, image.pixels, image.prediction.heatmap, mask))
    return examples


def picture_sheet(
    detector: AnomalyDetector, evaluation: Evaluation, *, title: str, per_type: int = PER_TYPE
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the sheet: for each type `per_type` images, each with its heatmap and its mask."""
    rows = list(choose(evaluation, per_type=per_type))
    triple = 3 * _TILE + 2 * _GAP
    width = _LABEL + per_type * (triple + 3 * _GAP)
    row_height = _TILE + _CAPTION + _GAP
    canvas = Image.new("RGB", (width, _HEADER + len(rows) * row_height + _FOOTER), _PAPER)
    draw, scale = ImageDraw.Draw(canvas), ColourScale(detector.threshold)
    draw.text((16, 14), title, font=font(24), fill=_INK)
    draw.text((16, 50), figures_line(evaluation), font=font(16), fill=_FAINT)
    for index, (defect_type, items) in enumerate(rows):
        top = _HEADER + index * row_height
        row = evaluation.row(defect_type)
        draw.text((16, top + 8), defect_type.replace("_", " "), font=font(17), fill=_INK)
        caption = f"{row.above_threshold} of {row.images} above\nthe threshold"
        draw.multiline_text((16, top + 34), caption, font=font(13), fill=_FAINT, spacing=3)
        for column, example in enumerate(load_examples(detector, items)):
            _draw_example(canvas, example, scale, left=_LABEL + column * (triple + 3 * _GAP), top=top)
    _draw_legend(canvas, scale, left=_LABEL)
    note = (
        "From left: image, heatmap, mask. One value, one colour everywhere; "
        "white lines enclose what is above the threshold."
    )
    draw.text((_LABEL + _BAR + 40, canvas.height - _FOOTER + 15), note, font=font(13), fill=_FAINT)
    return np.asarray(canvas)


def legend(scale: ColourScale) -> UInt8[np.ndarray, "height width 3"]:
    """Draw the colour scale alone, with its energies."""
    canvas = Image.new("RGB", (_BAR + 160, _FOOTER), _PAPER)
    _draw_legend(canvas, scale, left=80)
    return np.asarray(canvas)


def figures_line(evaluation: Evaluation) -> str:
    """Format the main figures in one line of text."""
    named = {
        "image AUROC": evaluation.image_auroc,
        "pixel AUROC": evaluation.pixel_auroc,
        "AUPRO": evaluation.aupro,
        "best F1": evaluation.f1_max,
    }
    return "   ".join(f"{name} {value:.3f}" for name, value in named.items() if value is not None)


def fit_tile(picture: UInt8[np.ndarray, "h w *c"], size: int) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """Resize a picture to fit into a square of `size` pixels; its aspect is kept."""
    height, width = picture.shape[:2]
    factor = size / max(height, width)
    resized = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(picture, resized, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)


def _draw_example(canvas: Image.Image, example: Example, scale: ColourScale, *, left: int, top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    mask = None if example.mask is None else np.repeat(example.mask[:, :, None], 3, axis=2) * np.uint8(255)
    # Shrunk first, so that the line around the anomaly keeps its width.
    small = fit_tile(example.image, _TILE)
    heatmap = reading.resize_map(example.heatmap, *small.shape[:2])
    for column, tile in enumerate((small, overlay(small, heatmap, scale), mask)):
        x = left + column * (_TILE + _GAP)
        draw.rectangle((x, top, x + _TILE - 1, top + _TILE - 1), fill=_EMPTY)
        if tile is None:
            draw.text((x + _TILE // 2, top + _TILE // 2), "no mask", font=font(13), fill=_FAINT, anchor="mm")
            continue
        picture = Image.fromarray(fit_tile(tile, _TILE))
        canvas.paste(picture, (x + (_TILE - picture.width) // 2, top + (_TILE - picture.height) // 2))
    anomalous = example.item.score > scale.threshold
    verdict = (
        f"{example.item.path.name}   {example.item.score:.3g}   {'anomalous' if anomalous else 'normal'}"
    )
    draw.text((left, top + _TILE + 4), verdict, font=font(13), fill=_ALARM if anomalous else _FAINT)


def _draw_legend(canvas: Image.Image, scale: ColourScale, *, left: int) -> None:
    """The colour bar with its three energies."""
    draw, top = ImageDraw.Draw(canvas), canvas.height - _FOOTER + 16
    canvas.paste(Image.fromarray(colour_bar(scale, length=_BAR, thickness=14)), (left, top))
    for share, text in ((0.0, "0"), (0.5, f"threshold {scale.threshold:.3g}"), (1.0, f"{scale.top:.3g}")):
        x = left + share * _BAR
        draw.line((x, top + 14, x, top + 19), fill=_INK)
        draw.text((x, top + 22), text, font=font(13), fill=_INK, anchor="ma")
    draw.text((16, top - 1), "energy", font=font(13), fill=_INK)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the letters of all pictures, so many pixels high."""
    return ImageFont.load_default(size)
