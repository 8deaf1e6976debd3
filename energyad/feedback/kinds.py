"""From named defects to `energyad.scoring.kinds`: what regions of each kind look like to the backbone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float64
from sklearn.covariance import OAS
from threadpoolctl import threadpool_limits

from energyad.feedback.evidence import Evidence
from energyad.feedback.learning import category_energy, scales_of
from energyad.model.manifest import Manifest
from energyad.scoring.coverage import patch_coverage
from energyad.scoring.kinds import MAX_NAMED, KindClassifier, describe, region_mask
from energyad.scoring.prediction import predict
from energyad.scoring.scorer import EnergyHead

MIN_EXAMPLES: Final = 3
"""Marked images of a kind from which on regions are called so."""
LIMIT_QUANTILE: Final = 0.9
"""Share of examples that are within the limit of a kind when they are left out."""
TEMPERATURES: Final = 2.0 ** np.arange(9)
_EPS: Final = 1e-9


def fit_kinds(evidence: Sequence[Evidence], *, head: EnergyHead, manifest: Manifest) -> KindClassifier | None:
    """Fit a classifier of the kinds that people named and marked.

    Each example is described as results will be: by the region that the model finds at the mark, and by the mark where
    it finds none. Each kind has a limit of its own, as kinds differ in how much they vary.

    The covariance within the kinds is shrunk in whitened features, that is towards the covariance of good patches: a
    few examples say too little of it.

    Args:
        evidence: Labelled images; those without a named and marked defect do not count.
        head: Of the model, whose finest scale's features count.
        manifest: Of the model: its threshold, and how images are cut.

    Returns:
        The classifier; None where no kind has `MIN_EXAMPLES`.
    """
    named = [one for one in evidence if one.is_defect and one.label.kind and one.coverage is not None]
    counts = Counter(one.label.kind or "" for one in named)
    kinds = sorted(kind for kind, count in counts.items() if count >= MIN_EXAMPLES)
    if not kinds:
        return None
    chosen = [one for one in named if one.label.kind in kinds]
    grid, projection = head.grid, category_energy(head).by_scale()[0].whitening.projection.double().numpy()
    described = np.stack([_description(one, head, manifest) for one in chosen]).astype(np.float64)
    x = described @ projection
    y = np.array([kinds.index(one.label.kind or "") for one in chosen])
    _, metric = _fit(x, y)
    centres = np.stack([described[y == kind].mean(axis=0) for kind in range(len(kinds))])
    left_out = _left_out_distances(x, y)
    own = left_out[np.arange(len(y)), y]
    return KindClassifier(
        names=tuple(kinds),
        centres=centres.astype(np.float32),
        metric=(metric @ projection.T).astype(np.float32),
        limits=np.array([np.quantile(own[y == kind], LIMIT_QUANTILE) for kind in range(len(kinds))]),
        temperature=_temperature(left_out, y),
        patches=(grid.rows.patches, grid.columns.patches),
        margins=(grid.rows.margin, grid.columns.margin),
    )


@torch.inference_mode()
def _description(one: Evidence, head: EnergyHead, manifest: Manifest) -> Float[np.ndarray, " c"]:
    """The features of the region of the highest peak that overlaps the mark, else those under the mark."""
    assert one.coverage is not None
    features, marked, channels = one.image.features.float(), one.coverage.numpy(), scales_of(head)[0].stop
    heatmap = head(features).heatmap[0].numpy()
    grid, spec = head.grid, manifest.input
    for region in predict(heatmap, manifest.calibration, shape=one.image.shape).regions[:MAX_NAMED]:
        found = patch_coverage(
            region_mask(region, one.image.shape, spec.shape),
            tiles=spec.tiles,
            tile_size=spec.image_size,
            patches=(grid.rows.patches, grid.columns.patches),
            margins=(grid.rows.margin, grid.columns.margin),
        )
        if (found * marked).any():
            return describe(features.numpy(), found, channels)
    return describe(features.numpy(), marked, channels)


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
    """The squared distance of each example to each kind, by means and metrics that did not see it.

    On one thread: the matrices are small, and beside other work threads that wait for each other take far longer.
    """
    rows = []
    with threadpool_limits(limits=1):
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
