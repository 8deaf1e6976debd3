"""An evaluation as one HTML page that needs no other file and no network, with its sheet and scores."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import UInt8

from energyad import images
from energyad.detector import AnomalyDetector
from energyad.evaluation import GOOD, Evaluation, ScoredItem, TypeRow
from energyad.files import write_whole
from energyad.inspection import ScoreRow, by_score, scores_csv
from energyad.overlays import ColourScale, colour_bar, overlay
from energyad.page_style import STYLE
from energyad.sheet import Example, choose, fit_tile, load_examples, picture_sheet

PER_TYPE: Final = 6
_SIDE: Final = 224  # pixels of a picture on the page, shown at half that on ordinary screens


def html_page(
    detector: AnomalyDetector, evaluation: Evaluation, *, title: str, note: str = "", per_type: int = PER_TYPE
) -> str:
    """The page. title, note: plain text; the note stands at the top, for what a reader must not miss."""
    scale = ColourScale(detector.threshold)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="faint">{escape(_described(detector, evaluation))}</p>',
        f'<p class="note">{escape(note)}</p>' if note else "",
        _cards(evaluation),
        "<h2>Scores</h2>",
        f'<div class="scroll">{_strip_plot(evaluation)}</div>',
        '<p class="faint">A point is an image. Right of the line: above the threshold, anomalous.</p>',
        "<h2>By type of defect</h2>",
        f'<div class="scroll">{_table(evaluation)}</div>',
        f'<p class="faint">{escape(_how_measured(evaluation))}</p>',
        "<h2>Heatmaps</h2>",
        _legend(scale),
        *_galleries(detector, evaluation, scale, per_type),
    ]
    view = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head = f"<head>{view}<title>{escape(title)}</title><style>{STYLE}</style></head>"
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en">{head}<body>\n{body}\n</body></html>\n'


def write_report(
    folder: Path, detector: AnomalyDetector, evaluation: Evaluation, *, title: str, note: str = ""
) -> None:
    """Write `index.html`, `sheet.png` and `scores.csv` into a folder. Raises ImageError, DataError."""
    rows = [
        ScoreRow(str(item.path), item.score, detector.threshold, item.score > detector.threshold, None, None)
        for item in evaluation.items
    ]
    write_whole(folder / "scores.csv", scores_csv(by_score(rows)))
    images.write_png(folder / "sheet.png", picture_sheet(detector, evaluation, title=title))
    write_whole(folder / "index.html", html_page(detector, evaluation, title=title, note=note))


def _described(detector: AnomalyDetector, evaluation: Evaluation) -> str:
    manifest = detector.manifest
    return (
        f"model {manifest.name}, fitted {manifest.created[:10]} on {manifest.provenance.num_images} good images · "
        f"{manifest.backbone.name}, {manifest.input.image_size} px, seed {manifest.provenance.seed} · "
        f"{len(evaluation.items)} test images, {evaluation.milliseconds_per_image:.0f} ms each"
    )


def _how_measured(evaluation: Evaluation) -> str:
    calibration = f"pixels at {evaluation.resolution} × {evaluation.resolution}"
    return f"Each type against all good test images; {calibration}; AUPRO up to a false positive rate of 0.3."


def _cards(evaluation: Evaluation) -> str:
    interval = evaluation.image_auroc_interval
    between = "" if interval is None else f"95 %: {interval[0]:.3f} to {interval[1]:.3f}"
    cells = [
        ("image AUROC", evaluation.image_auroc, between),
        ("pixel AUROC", evaluation.pixel_auroc, ""),
        ("AUPRO", evaluation.aupro, "to 0.3 false positives"),
        ("best F1", evaluation.f1_max, "of images"),
    ]
    cards = [
        f'<div class="card">{name}<b>{_figure(value)}</b><span class="faint">{detail}</span></div>'
        for name, value, detail in cells
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(evaluation: Evaluation) -> str:
    def line(row: TypeRow) -> str:
        cells = [str(row.images), str(row.above_threshold)]
        cells += [_figure(value) for value in (row.image_auroc, row.pixel_auroc, row.aupro)]
        return f"<tr><td>{escape(row.defect_type)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"

    names = ("type", "images", "above threshold", "image AUROC", "pixel AUROC", "AUPRO")
    header = "".join(f"<th>{name}</th>" for name in names)
    return f"<table><tr>{header}</tr>{''.join(line(row) for row in evaluation.types)}</table>"


def _strip_plot(evaluation: Evaluation) -> str:
    """Scores of each type on one logarithmic axis, with the threshold."""
    scores = [max(item.score, 1e-12) for item in evaluation.items]
    limit = max(evaluation.threshold, 1e-12)
    low, high = math.log(min(*scores, limit)) - 0.05, math.log(max(*scores, limit)) + 0.05
    types = sorted({item.defect_type for item in evaluation.items}, key=lambda name: (name != GOOD, name))
    width, label, line = 980, 150, 26
    height = line * len(types) + 34

    def x(score: float) -> float:
        return label + (math.log(max(score, 1e-12)) - low) / (high - low) * (width - label - 20)

    shapes = []
    for index, defect_type in enumerate(types):
        y = 14 + index * line
        shapes.append(f'<line class="axis" x1="{label}" x2="{width - 20}" y1="{y}" y2="{y}"/>')
        shapes.append(f'<text x="0" y="{y + 4}">{escape(defect_type)}</text>')
        own = [item for item in evaluation.items if item.defect_type == defect_type]
        shapes += [_point(x(item.score), y, item, over=item.score > limit) for item in own]
    bottom = height - 20
    shapes.append(f'<line class="limit" x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="0" y2="{bottom}"/>')
    text = f"threshold {limit:.3g}"
    shapes.append(f'<text x="{x(limit):.1f}" y="{bottom + 15}" text-anchor="middle">{text}</text>')
    for at, anchor in ((math.exp(low + 0.05), "start"), (math.exp(high - 0.05), "end")):
        if abs(x(at) - x(limit)) > 90:
            shapes.append(
                f'<text class="tick" x="{x(at):.1f}" y="{bottom + 15}" text-anchor="{anchor}">{at:.3g}</text>'
            )
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img">{"".join(shapes)}</svg>'


def _point(x: float, y: float, item: ScoredItem, *, over: bool) -> str:
    mark, tip = ' class="over"' if over else "", f"{escape(item.path.name)} {item.score:.4g}"
    return f'<circle{mark} cx="{x:.1f}" cy="{y}" r="5"><title>{tip}</title></circle>'


def _legend(scale: ColourScale) -> str:
    bar = _embedded(colour_bar(scale, length=420, thickness=14), "energy from cold to hot")
    marks = f"<span><i>0</i><i>threshold {scale.threshold:.3g}</i><i>{scale.top:.3g} and more</i></span>"
    text = "Image, heatmap, mask. The same energy has the same colour in every image; white lines enclose what is above"
    return f'<div class="scale">{bar}{marks}</div><p class="faint">{text} the threshold. Highest scores first.</p>'


def _galleries(
    detector: AnomalyDetector, evaluation: Evaluation, scale: ColourScale, per_type: int
) -> Iterator[str]:
    for defect_type, items in choose(evaluation, per_type=per_type):
        figures = [_figure_of(example, scale) for example in load_examples(detector, items)]
        yield f'<h2>{escape(defect_type)}</h2><div class="parts">{"".join(figures)}</div>'


def _figure_of(example: Example, scale: ColourScale) -> str:
    small = fit_tile(example.image, _SIDE)
    heatmap = images.resize_map(example.heatmap, *small.shape[:2])
    pictures: Sequence[tuple[UInt8[np.ndarray, "h w *c"], str]] = [
        (small, "image"),
        (overlay(small, heatmap, scale), "heatmap"),
        *([] if example.mask is None else [(fit_tile(example.mask.astype(np.uint8) * 255, _SIDE), "mask")]),
    ]
    row = "".join(_embedded(picture, name) for picture, name in pictures)
    anomalous = example.item.score > scale.threshold
    verdict = '<span class="bad">anomalous</span>' if anomalous else "normal"
    caption = f"{escape(example.item.path.name)} · {example.item.score:.3g} · {verdict}"
    return f"<figure><div>{row}</div><figcaption>{caption}</figcaption></figure>"


def _embedded(picture: UInt8[np.ndarray, "h w *c"], name: str) -> str:
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    data = base64.b64encode(
        cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    ).decode()
    return f'<img alt="{name}" loading="lazy" src="data:image/jpeg;base64,{data}">'
