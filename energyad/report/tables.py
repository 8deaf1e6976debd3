"""Figures as tables and cards of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from energyad.evaluation.evaluate import Evaluation, TypeRow
from energyad.line.drift import Drift
from energyad.model.card import model_card
from energyad.model.manifest import Manifest
from energyad.scoring.calibration import Calibration
from energyad.scoring.results import ImageResult


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table as HTML. Cells are plain text; the first column is aligned left."""
    header = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table><tr>{header}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def evaluation_cards(evaluation: Evaluation) -> str:
    """Write the main figures of labelled images as cards."""
    interval = evaluation.image_auroc_interval
    between = "" if interval is None else f"95 %: {interval[0]:.3f} to {interval[1]:.3f}"
    return _cards(
        ("image AUROC", figure(evaluation.image_auroc), between),
        ("pixel AUROC", figure(evaluation.pixel_auroc), ""),
        ("AUPRO", figure(evaluation.aupro), "to 0.3 false positives"),
        ("best F1", figure(evaluation.f1_max), "of images"),
    )


def verdict_cards(results: Sequence[ImageResult]) -> str:
    """Write how many images have which verdict as cards."""
    counts: Counter[str] = Counter(result.verdict or "unreadable" for result in results)
    total = max(1, len(results))
    shown = [name for name in ("ng", "review", "ok", "unreadable") if counts[name] or name in {"ng", "ok"}]
    return _cards(*((name, str(counts[name]), f"{counts[name] / total:.1%} of images") for name in shown))


def _cards(*cells: tuple[str, str, str]) -> str:
    cards = [
        f'<div class="card">{escape(name)}<b>{value}</b><span class="faint">{detail}</span></div>'
        for name, value, detail in cells
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def figure(value: float | None) -> str:
    """Format a figure with three digits, or as a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def types_table(evaluation: Evaluation) -> str:
    """Write a table with a row for each type of defect."""

    def cells(row: TypeRow) -> list[str]:
        figures = [figure(value) for value in (row.image_auroc, row.pixel_auroc, row.aupro)]
        return [row.defect_type, str(row.images), str(row.above_threshold), *figures]

    columns = ("type", "images", "above threshold", "image AUROC", "pixel AUROC", "AUPRO")
    return table(columns, [cells(row) for row in evaluation.types])


def calibration_table(manifest: Manifest) -> str:
    """Write a table of the model's calibration and those before it."""

    def row(spec: Calibration, when: str) -> list[str]:
        review = "–" if spec.review_threshold is None else f"{spec.review_threshold:.4g}"
        rate, count = f"{spec.false_reject_rate:.2%}", str(len(spec.good_scores))
        return [when, f"{spec.threshold:.4g}", rate, spec.method, review, count]

    today = manifest.calibration
    rows = [row(today, f"{(today.created or manifest.created)[:10]}, in force")]
    for earlier in reversed(manifest.previous_calibrations):
        rows.append(row(earlier, (earlier.created or manifest.created)[:10]))
    columns = ("calibrated", "threshold", "false rejects aimed at", "method", "review from", "good parts")
    return table(columns, rows)


def training_table(manifest: Manifest) -> str:
    """Write a table of the health of DxMI's training, an energy a row."""
    columns = ("energy of samples / data", "at bound", "mean square of samples / data", "classifier's AUROC")
    rows = [
        [
            f"{health.energy_ratio:.2f}",
            f"{health.bound_share:.0%}",
            f"{health.mean_square_ratio:.2f}",
            f"{health.classifier_auroc:.3f}",
            f"{health.objective_before:.3g} → {health.objective_after:.3g}",
            health.verdict(),
        ]
        for health in manifest.training_health
    ]
    return table((*columns, "sampler's objective", "verdict"), rows)


def drift_table(drift: Drift) -> str:
    """Write a table of each drift quantity: reference, window, and the test between them."""
    rows = [
        [shift.label.replace("_", " ")]
        + [f"{value:.4g}" for value in (shift.then, shift.now, shift.ks)]
        + [f"{shift.p_value:.2g}", f"{shift.psi:.3g}", f"{shift.psi_limit:.3g}"]
        + ["shifted" if shift.shifted else "steady"]
        for shift in drift.shifts
    ]
    columns = ("quantity", "good parts", "these parts", "KS", "p", "PSI", "PSI limit", "")
    return table(columns, rows)


def card_as_html(manifest: Manifest) -> str:
    """Write the model card's paragraphs and its table as HTML."""
    parts, rows = list[str](), list[str]()
    blocks = model_card(manifest).split("\n\n")[1:]
    for block in blocks:
        if block.startswith("|"):
            for line in block.splitlines()[2:]:
                name, value = (cell.strip() for cell in line.strip("|").split("|", 1))
                rows.append(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>")
            parts.append(f'<table class="words">{"".join(rows)}</table>')
        else:
            parts.append(f"<p>{escape(block.replace('`', ''))}</p>")
    return "".join(parts)
