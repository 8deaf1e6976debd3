"""From named defects to `energyad.scoring.kinds`: what regions of each kind look like to the backbone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, Float64
from sklearn.covariance import OAS

from energyad.energy.whitening import Whitening
from energyad.features.grids import Grid, Scale
from energyad.feedback.evidence import Evidence
from energyad.scoring.kinds import KindClassifier, describe

MIN_EXAMPLES: Final = 3
"""Marked images of a kind from which on regions are called so."""
LIMIT_QUANTILE: Final = 0.9
"""Share of examples that are within the limit of a kind when they are left out."""
TEMPERATURES: Final = 2.0 ** np.arange(9)
_EPS: Final = 1e-9


def fit_kinds(
    evidence: Sequence[Evidence], *, grid: Grid, scale: Scale, whitening: Whitening
) -> KindClassifier | None:
    """Fit a classifier of the kinds that people named and marked.

    The covariance within the kinds is shrunk in whitened features, that is towards the covariance of good patches: a
    few examples say too little of it.

    Args:
        evidence: Labelled images; those without a named and marked defect do not count.
        grid: Of the model's patches.
        scale: The finest, whose features count.
        whitening: Of this scale's features.

    Returns:
        The classifier; None where no kind has `MIN_EXAMPLES`.
    """
    named = [one for one in evidence if one.is_defect and one.label.kind and one.coverage is not None]
    counts = Counter(one.label.kind or "" for one in named)
    kinds = sorted(kind for kind, count in counts.items() if count >= MIN_EXAMPLES)
    if not kinds:
        return None
    chosen = [one for one in named if one.label.kind in kinds]
    described = np.stack([_description(one, scale.stop) for one in chosen]).astype(np.float64)
    projection = whitening.projection.double().numpy()
    x = described @ projection
    y = np.array([kinds.index(one.label.kind or "") for one in chosen])
    _, metric = _fit(x, y)
    centres = np.stack([described[y == kind].mean(axis=0) for kind in range(len(kinds))])
    left_out = _left_out_distances(x, y)
    return KindClassifier(
        names=tuple(kinds),
        centres=centres.astype(np.float32),
        metric=(metric @ projection.T).astype(np.float32),
        limit=float(np.quantile(left_out.min(axis=1), LIMIT_QUANTILE)),
        temperature=_temperature(left_out, y),
        patches=(grid.rows.patches, grid.columns.patches),
        margins=(grid.rows.margin, grid.columns.margin),
    )


def _description(one: Evidence, channels: int) -> Float[np.ndarray, " c"]:
    assert one.coverage is not None
    return describe(one.image.features.float().numpy(), one.coverage.numpy(), channels)


def _fit(
    x: Float64[np.ndarray, "n c"], y: Float[np.ndarray, " n"]
) -> tuple[Float64[np.ndarray, "k c"], Float64[np.ndarray, "c c"]]:
    """Means, and the metric of the shrunk covariance within the kinds."""
    kinds = np.unique(y)
    centres = np.stack([x[y == kind].mean(axis=0) for kind in kinds])
    residuals = x - centres[np.searchsorted(kinds, y)]
    freedom = len(x) / max(1, len(x) - len(kinds))
    covariance = freedom * OAS(assume_centered=True).fit(residuals).covariance_
    covariance += _EPS * max(1.0, float(np.trace(covariance))) * np.eye(len(covariance))
    return centres, np.linalg.cholesky(np.linalg.inv(covariance)).T


def _left_out_distances(
    x: Float64[np.ndarray, "n c"], y: Float[np.ndarray, " n"]
) -> Float64[np.ndarray, "n k"]:
    """The squared distance of each example to each kind, by means and metrics that did not see it."""
    rows = []
    for index in range(len(x)):
        others = np.arange(len(x)) != index
        centres, metric = _fit(x[others], y[others])
        rows.append(np.square((x[index] - centres) @ metric.T).sum(axis=1))
    return np.stack(rows)


def _temperature(distances: Float64[np.ndarray, "n k"], y: Float[np.ndarray, " n"]) -> float:
    """The temperature by which examples that were left out are likeliest of their own kind."""

    def likelihood(temperature: float) -> float:
        logits = -distances / (2 * temperature)
        logits -= logits.max(axis=1, keepdims=True)
        return float((logits[np.arange(len(y)), y] - np.log(np.exp(logits).sum(axis=1))).mean())

    return float(max(TEMPERATURES, key=likelihood))
