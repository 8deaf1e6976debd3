"""Detection figures: AUROC, AUPRO and best F1, of images and of pixels, equal to scikit-learn's.

Pixels are tallied by energy as images come, so a test set of any size takes the memory of one image. AUROC and AUPRO
are then weighted ROC curves over the energies met. `None` stands for a figure that the data cannot give. Evaluating
runs where scoring does, without scikit-learn and its SciPy; the tests compare with both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

FPR_LIMIT: Final = 0.3
_DROPPED_BITS: Final = 10  # of float32's 23 fraction bits: energies closer than 1 in 8,192 count as equal
_LEVELS: Final = 1 << (32 - _DROPPED_BITS)
_BLOCK: Final = 1 << 12  # neighbouring levels: of most blocks no image has any
_DRAWS: Final = 1000


def image_auroc(defective: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Compute the probability that a defective image scores above a good one; None without images of both kinds."""
    if len(set(defective)) < 2:
        return None
    return _area(*_roc(*_counts(defective, scores)))


def best_f1(defective: Sequence[bool], scores: Sequence[float]) -> float | None:
    """Compute the highest F1 of any threshold: a property of the ranking, not of the model's own threshold."""
    if len(set(defective)) < 2:
        return None
    good, bad = (np.cumsum(counts[::-1]) for counts in _counts(defective, scores))  # above each threshold
    return float(np.max(2 * bad / (bad + good + bad[-1])))


def image_auroc_interval(
    defective: Sequence[bool], scores: Sequence[float], *, generator: np.random.Generator
) -> tuple[float, float] | None:
    """Compute the 95 % bootstrap interval of the image AUROC; good and defective images are resampled separately."""
    if len(set(defective)) < 2:
        return None
    won = pairs_won(defective, scores)
    low, high = np.quantile(redrawn_means(won, draws=_DRAWS, generator=generator), (0.025, 0.975))
    return float(low), float(high)


def pairs_won(defective: Sequence[bool], scores: Sequence[float]) -> Float[np.ndarray, "d g"]:
    """Return which (defective, good) pairs are ranked right, ties half: the mean is the AUROC (Mann, Whitney 1947)."""
    labels, values = np.asarray(defective, dtype=bool), np.asarray(scores)
    above, below = values[labels][:, None], values[~labels]
    won: Float[np.ndarray, "d g"] = (above > below).astype(np.float32) + 0.5 * (above == below)
    return won


def redrawn_means(
    pairs: Float[np.ndarray, "d g"], *, draws: int, generator: np.random.Generator
) -> Float[np.ndarray, " draws"]:
    """Compute bootstrap means of pairs, with defective and good images resampled separately.

    Args:
        pairs: A value for each (defective, good) pair.
        draws: Number of bootstrap samples.
        generator: Draws the samples.
    """
    weights = [
        generator.multinomial(count, np.full(count, 1 / count), size=draws) / count for count in pairs.shape
    ]
    means: Float[np.ndarray, " draws"] = ((weights[0] @ pairs) * weights[1]).sum(axis=1)
    return means


@dataclass(frozen=True)
class PixelTally:
    """How many pixels have each energy.

    Attributes:
        background: Pixels outside of masks, by level of energy.
        defect: Pixels inside of masks, by level.
        regions: The same as shares of their connected region, so that each region adds up to 1, however large it is.
        has_met: Whether any pixel has a level of this block of them.
    """

    background: Float[np.ndarray, " levels"]
    defect: Float[np.ndarray, " levels"]
    regions: Float[np.ndarray, " levels"]
    has_met: Bool[np.ndarray, " blocks"]

    @classmethod
    def empty(cls) -> PixelTally:
        """Start with nothing counted. Levels that never occur take no memory: their pages are never touched."""
        background, defect, regions = (np.zeros(_LEVELS) for _ in range(3))
        return cls(background, defect, regions, np.zeros(_LEVELS // _BLOCK, dtype=bool))

    def add(self, heatmap: Float32[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> None:
        """Count the pixels of one image. heatmap and mask have the same size."""
        levels = _levels(heatmap)
        self.has_met[levels // _BLOCK] = True
        np.add.at(self.background, levels[~mask], 1)
        if not mask.any():
            return
        np.add.at(self.defect, levels[mask], 1)
        _, labels = cv2.connectedComponents(mask.astype(np.uint8))
        sizes = np.bincount(labels.ravel())
        np.add.at(self.regions, levels[mask], 1 / sizes[labels[mask]])


def pixel_auroc(tallies: Iterable[PixelTally]) -> float | None:
    """Compute the probability that a defective pixel has a higher energy than a good one, over all images tallied."""
    curve = _curve(tallies, "defect")
    return None if curve is None else _area(*curve)


def pixel_average_precision(tallies: Iterable[PixelTally]) -> float | None:
    """Compute the average precision of pixels: each recall that is gained times the precision there."""
    summed = _summed(tallies, "defect")
    if summed is None:
        return None
    background, defect = (np.cumsum(weights[::-1]) for weights in summed)
    gained = np.diff(defect, prepend=0.0) / defect[-1]
    return float((gained * defect / (background + defect)).sum())


def aupro(tallies: Iterable[PixelTally], *, fpr_limit: float = FPR_LIMIT) -> float | None:
    """Compute the area under the per-region overlap (Bergmann et al. 2020) up to a false positive rate, divided by it.

    The overlap averaged over regions is the share of `regions` above a threshold, so its curve over the false
    positive rate is a ROC curve in which every region weighs the same.
    """
    curve = _curve(tallies, "regions")
    if curve is None:
        return None
    false_positives, overlap = curve
    inside = false_positives < fpr_limit
    edge = np.interp(fpr_limit, false_positives, overlap)
    area = _area(np.append(false_positives[inside], fpr_limit), np.append(overlap[inside], edge))
    return area / fpr_limit


def _levels(energies: Float32[np.ndarray, "h w"]) -> Int64[np.ndarray, "h w"]:
    """Integers in the order of the energies: IEEE 754 bits sort as the numbers do, once signs are dealt with."""
    bits = (energies.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    ordered = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> _DROPPED_BITS).astype(np.int64)


def _curve(
    tallies: Iterable[PixelTally], foreground: Literal["defect", "regions"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]] | None:
    """Weighted ROC curve over all levels; None where there is no background or no foreground."""
    summed = _summed(tallies, foreground)
    return None if summed is None else _roc(*summed)


def _summed(
    tallies: Iterable[PixelTally], foreground: Literal["defect", "regions"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]] | None:
    """Background and foreground weights of the levels that occur, lowest first; None where either is absent."""
    tallies = list(tallies)
    if not tallies:
        return None
    blocks = np.flatnonzero(functools.reduce(np.logical_or, [tally.has_met for tally in tallies]))
    weights = [
        functools.reduce(np.add, [getattr(tally, name).reshape(-1, _BLOCK)[blocks] for tally in tallies])
        for name in ("background", foreground)
    ]
    if not (weights[0].any() and weights[1].any()):
        return None
    met = (weights[0] + weights[1]).nonzero()
    return weights[0][met], weights[1][met]


def _counts(
    defective: Sequence[bool], scores: Sequence[float]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """How many good and how many defective images have each score that occurs, lowest first."""
    labels = np.asarray(defective, dtype=bool)
    values, places = np.unique(np.asarray(scores), return_inverse=True)
    counts = [
        np.bincount(places[chosen], minlength=len(values)).astype(float) for chosen in (~labels, labels)
    ]
    return counts[0], counts[1]


def _roc(
    background: Float[np.ndarray, " k"], foreground: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " k+1"], Float[np.ndarray, " k+1"]]:
    """False and true positive rates at falling thresholds, of weights by level, lowest first; neither adds up to 0."""
    false_positives, true_positives = (
        np.concatenate([[0.0], np.cumsum(weights[::-1])]) for weights in (background, foreground)
    )
    return false_positives / false_positives[-1], true_positives / true_positives[-1]


def _area(x: Float[np.ndarray, " k"], y: Float[np.ndarray, " k"]) -> float:
    """Area under a line through points, by the trapezoidal rule."""
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)
