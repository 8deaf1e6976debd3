"""Scores as pictures: a histogram that the threshold divides, and a point for each labelled image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

import numpy as np

from energyad.data.datasets import GOOD
from energyad.evaluation.evaluate import Evaluation, ScoredTestItem
from energyad.scoring.calibration import Calibration

_TINY: Final = 1e-12
_WIDTH, _LEFT, _RIGHT, _HEIGHT = 980, 40, 20, 220
_BINS: Final = 44
_FLOOR: Final = 40


def histogram(scores: Sequence[float], calibration: Calibration) -> str:
    """Draw a histogram of scores on a logarithmic axis, with the held-out good parts as ticks below it.

    The threshold is an edge between bars, so that no bar is on both sides of it.
    """
    limit, review = max(calibration.threshold, _TINY), calibration.review_threshold
    values = np.log(np.maximum([*scores, *calibration.good_scores, limit], _TINY))
    step = max(float(values.max() - values.min()) / _BINS, 1e-3)
    places = np.floor((values[: len(scores)] - math.log(limit)) / step - 1e-9).astype(int)
    first = math.floor((float(values.min()) - math.log(limit)) / step - 1e-9)  # as the places
    last = max(0, math.floor((float(values.max()) - math.log(limit)) / step))
    counts = np.bincount(places - first, minlength=last - first + 1) if len(scores) else np.zeros(1)
    top = max(1, int(counts.max()))
    pixels = (_WIDTH - _LEFT - _RIGHT) / (last - first + 1)

    def x(score: float) -> float:
        return _LEFT + ((math.log(max(score, _TINY)) - math.log(limit)) / step - first) * pixels

    shapes = [_scale(top)]
    for index, count in enumerate(counts.tolist()):
        if count:
            over, height = index + first >= 0, count / top * (_HEIGHT - _FLOOR - 20)
            kind = "bar over" if over else "bar"
            low, high = (limit * math.exp((index + first + end) * step) for end in (0, 1))
            tip = f"{count} images from {low:.3g} to {high:.3g}"
            shapes.append(
                f'<rect class="{kind}" x="{_LEFT + index * pixels:.1f}" y="{_HEIGHT - _FLOOR - height:.1f}" '
                f'width="{max(1.0, pixels - 1):.1f}" height="{height:.1f}"><title>{tip}</title></rect>'
            )
    for score in calibration.good_scores:
        at = f"{x(score):.1f}"
        shapes.append(f'<line class="good" x1="{at}" x2="{at}" y1="{_HEIGHT - 38}" y2="{_HEIGHT - 31}"/>')
    if review is not None and review < limit:
        shapes.append(_limit(x(review), f"review {review:.3g}", kind="limit mild", anchor="end"))
    shapes.append(_limit(x(limit), f"threshold {limit:.3g}", kind="limit", anchor="start"))
    for score, anchor in ((math.exp(values.min()), "start"), (math.exp(values.max()), "end")):
        at = f'x="{x(score):.1f}" y="{_HEIGHT - 16}"'
        shapes.append(f'<text class="tick" {at} text-anchor="{anchor}">{score:.3g}</text>')
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">{"".join(shapes)}</svg>'


def _scale(top: int) -> str:
    base = _HEIGHT - _FLOOR
    return (
        f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="24" text-anchor="end">{top}</text>'
        f'<text class="tick" x="{_LEFT - 6}" y="{base}" text-anchor="end">0</text>'
    )


def _limit(x: float, text: str, *, kind: str, anchor: str) -> str:
    shift = 5 if anchor == "start" else -5
    return (
        f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{_HEIGHT - _FLOOR}"/>'
        f'<text x="{x + shift:.1f}" y="13" text-anchor="{anchor}">{text}</text>'
    )


def strip_plot(evaluation: Evaluation) -> str:
    """Draw the scores of each type on one logarithmic axis, with the threshold."""
    scores = [max(item.score, _TINY) for item in evaluation.items]
    limit = max(evaluation.threshold, _TINY)
    low, high = math.log(min(*scores, limit)) - 0.05, math.log(max(*scores, limit)) + 0.05
    types = sorted({item.defect_type for item in evaluation.items}, key=lambda name: (name != GOOD, name))
    width, label, line = _WIDTH, 150, 26
    height = line * len(types) + 34

    def x(score: float) -> float:
        return label + (math.log(max(score, _TINY)) - low) / (high - low) * (width - label - 20)

    shapes = []
    for index, defect_type in enumerate(types):
        y = 14 + index * line
        shapes.append(f'<line class="axis" x1="{label}" x2="{width - 20}" y1="{y}" y2="{y}"/>')
        shapes.append(f'<text x="0" y="{y + 4}">{escape(defect_type)}</text>')
        items = [item for item in evaluation.items if item.defect_type == defect_type]
        shapes += [_point(x(item.score), y, item, over=item.score > limit) for item in items]
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


def _point(x: float, y: float, item: ScoredTestItem, *, over: bool) -> str:
    mark, tip = ' class="over"' if over else "", f"{escape(Path(item.path).name)} {item.score:.4g}"
    return f'<circle{mark} cx="{x:.1f}" cy="{y}" r="5"><title>{tip}</title></circle>'
