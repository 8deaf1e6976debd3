"""The page: what was found first, then what it rests on, then every image in pages of fifty."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

import cv2

from energyad.data.datasets import GOOD
from energyad.detector import AnomalyDetector
from energyad.evaluation.evaluate import Evaluation
from energyad.files import atomic_write
from energyad.images import reading
from energyad.model.manifest import Manifest
from energyad.report import plots, tables
from energyad.report.gathering import MAX_PICTURED, Report, ReportImage, of_category
from energyad.report.overlays import ColourScale, colour_bar
from energyad.report.sheet import picture_sheet
from energyad.report.style import STYLE
from energyad.scoring.results import ImageResult, by_score, named_kind, results_csv

PAGE: Final = 50
"""Images a page; a closed page costs a browser nothing."""
MAX_LISTED: Final = 10_000


def html_page(report: Report, *, title: str, note: str = "") -> str:
    """Write the page.

    Args:
        report: What it shows.
        title: Plain text.
        note: Plain text at the top, for what a reader must not miss.
    """
    manifest, evaluation, drift = report.manifest, report.evaluation, report.drift
    results = [image.result for image in report.images]
    calibration = manifest.calibration
    scores = [result.score for result in results if result.score is not None]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="faint">{escape(_described(report))}</p>',
        f'<p class="note">{escape(note)}</p>' if note else "",
        f'<p class="note warn">{escape(drift.advice)}</p>'
        if drift is not None and drift.state == "shifted"
        else "",
        tables.evaluation_cards(evaluation) if evaluation is not None else "",
        tables.verdict_cards(results),
        "<h2>Scores</h2>",
        f'<div class="scroll">{plots.histogram(scores, calibration)}</div>',
        '<p class="faint">Images by score, right of the threshold ng. Ticks: the held-out good parts.</p>',
        *_by_type(evaluation),
        "<h2>Images, highest scores first</h2>",
        _legend(ColourScale(calibration.threshold)) if _has_heatmaps(report.images) else "",
        *_pages(report.images, grouped=evaluation is not None),
        "<h2>Calibration</h2>",
        f"<p>{escape(calibration.guarantee())}</p>",
        f'<div class="scroll">{tables.calibration_table(manifest)}</div>',
        *_drift(report),
        *_training(manifest),
        "<h2>Model card</h2>",
        tables.card_as_html(manifest),
    ]
    # Nothing is fetched: the browser refuses it too.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style>'
    )
    body = "\n".join(part for part in parts if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def write_report(
    folder: Path,
    detector: AnomalyDetector,
    evaluation: Evaluation,
    *,
    title: str,
    note: str = "",
) -> None:
    """Write `index.html`, `sheet.png` and `scores.csv` of an evaluation into a folder.

    Raises:
        ImageError: An image of the evaluation cannot be read any more.
        DataError: A file cannot be written.
    """
    report = of_category(detector, evaluation)
    atomic_write(folder / "scores.csv", results_csv(by_score(image.result for image in report.images)))
    reading.write_png(folder / "sheet.png", picture_sheet(detector, evaluation, title=title))
    atomic_write(folder / "index.html", html_page(report, title=title, note=note))


def _described(report: Report) -> str:
    manifest, evaluation = report.manifest, report.evaluation
    speed = "" if evaluation is None else f", {evaluation.milliseconds_per_image:.0f} ms each"
    return (
        f"model {manifest.name}, fitted {manifest.created[:10]} on {manifest.provenance.num_images} good images · "
        f"{manifest.source}, {manifest.input.described}, seed {manifest.provenance.seed} · "
        f"{len(report.images)} images{speed}"
    )


def _by_type(evaluation: Evaluation | None) -> Iterator[str]:
    if evaluation is None:
        return
    pixels = "pixels at {1} × {0}".format(*evaluation.resolution)
    yield "<h2>By type of defect</h2>"
    yield f'<div class="scroll">{plots.strip_plot(evaluation)}</div>'
    yield f'<div class="scroll">{tables.types_table(evaluation)}</div>'
    yield f'<p class="faint">Each type against all good test images; {pixels}; AUPRO up to 0.3 false positives.</p>'


def _drift(report: Report) -> Iterator[str]:
    drift = report.drift
    if drift is None:
        return
    yield "<h2>Drift</h2>"
    which = "good test images" if report.evaluation is not None else "latest images"
    yield f"<p>{escape(drift.advice)}</p>"
    if drift.shifts:
        yield f'<div class="scroll">{tables.drift_table(drift)}</div>'
    yield f'<p class="faint">The {drift.window} {which} against {drift.reference} held-out good parts.</p>'


def _training(manifest: Manifest) -> Iterator[str]:
    if manifest.training_health:
        yield "<h2>Training</h2>"
        yield f'<div class="scroll">{tables.training_table(manifest)}</div>'
        yield (
            '<p class="faint">Of each energy that DxMI trained. A classifier that tells its samples from good patches '
            "at an AUROC near 1 shows a sampler that did not keep up.</p>"
        )


def _pages(images: Sequence[ReportImage], *, grouped: bool) -> Iterator[str]:
    """Pages of images, by type where they are labelled; the first of each type is open while there are few."""
    groups: dict[str, list[tuple[int, ReportImage]]] = {}
    for rank, image in enumerate(images[:MAX_LISTED], start=1):
        groups.setdefault((image.defect_type or "") if grouped else "", []).append((rank, image))
    is_short = len(images) <= 2 * PAGE
    for number, name in enumerate(sorted(groups, key=lambda name: (name == GOOD, name))):
        group = groups[name]
        for start in range(0, len(group), PAGE):
            page = group[start : start + PAGE]
            is_open = " open" if start == 0 and (number == 0 or is_short) else ""
            figures = "".join(_figure(image, rank) for rank, image in page)
            heading = f"{escape(name)} {start + 1} to {start + len(page)} of {len(group)}".strip()
            yield f"<details{is_open}><summary>{heading}{_score_range([image for _, image in page])}</summary>"
            yield f'<div class="parts">{figures}</div></details>'
    if len(images) > MAX_LISTED:
        yield f"<p>{len(images) - MAX_LISTED} more images with lower scores are not listed.</p>"
    if len(images) > MAX_PICTURED:
        yield f'<p class="faint">Pictures of the {MAX_PICTURED} highest scores alone.</p>'


def _score_range(page: Sequence[ReportImage]) -> str:
    scores = [image.result.score for image in page if image.result.score is not None]
    return f' <span class="faint">scores {max(scores):.3g} to {min(scores):.3g}</span>' if scores else ""


def _figure(image: ReportImage, rank: int) -> str:
    result = image.result
    row = "".join(_embedded(data, name) for name, data in image.pictures)
    pictures = f'<div class="n{len(image.pictures)}">{row}</div>' if row else ""
    name = escape("/".join(Path(result.image or "image").parts[-2:]))
    if result.score is None:
        return f"<figure><figcaption>{name} · unreadable: {escape(result.error or '')}</figcaption></figure>"
    style = {"ng": "bad", "review": "mild"}.get(result.verdict or "", "")
    verdict = f'<span class="{style}">{result.verdict}</span>'
    facts = f"#{rank} {name} · {result.score:.4g} · {verdict} · p {result.p_value:.3g}"
    category = "" if result.category is None else f" · taken for {escape(result.category)}"
    missing = "" if row else " · image not at hand"
    caption = f"{facts}{category}{missing}{_regions(result)}"
    return f"<figure>{pictures}<figcaption>{caption}</figcaption></figure>"


def _regions(result: ImageResult) -> str:
    """The regions in words, the first three."""
    if not result.regions:
        return ""
    words = [
        f"{region.area_percent:.2g} % at {region.peak_at[0]}, {region.peak_at[1]} (peak {region.peak:.3g})"
        f"{f', {escape(named_kind(region))}' if region.kind else ''}"
        for region in result.regions[:3]
    ]
    more = f" and {len(result.regions) - 3} more" if len(result.regions) > 3 else ""
    return f"<br>{'; '.join(words)}{more}"


def _has_heatmaps(images: Sequence[ReportImage]) -> bool:
    return any(name == "heatmap" for image in images for name, _ in image.pictures)


def _legend(scale: ColourScale) -> str:
    picture = cv2.cvtColor(colour_bar(scale, length=420, thickness=14), cv2.COLOR_RGB2BGR)
    bar = _embedded(cv2.imencode(".jpg", picture)[1].tobytes(), "energy from cold to hot")
    marks = f"<span><i>0</i><i>threshold {scale.threshold:.3g}</i><i>{scale.top:.3g} and more</i></span>"
    text = "A colour is one value in every heatmap; lines enclose the regions of parts that are not ok."
    return f'<div class="scale">{bar}{marks}</div><p class="faint">{text}</p>'


def _embedded(jpeg: bytes, name: str) -> str:
    data = base64.b64encode(jpeg).decode()
    return f'<img alt="{name}" loading="lazy" decoding="async" src="data:image/jpeg;base64,{data}">'
