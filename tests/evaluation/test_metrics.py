"""Laws of the figures: they agree with the libraries that sort every pixel, and know good from perfect from chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from energyad.evaluation import metrics
from energyad.evaluation.metrics import PixelTally


def tallied(heatmaps: np.ndarray, masks: np.ndarray) -> PixelTally:
    tally = PixelTally.empty()
    for heatmap, mask in zip(heatmaps, masks, strict=True):
        tally.add(heatmap, mask)
    return tally


def scene(seed: int = 0, *, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Noise heatmaps of four images, with defects of very different sizes, one image good."""
    rng = np.random.default_rng(seed)
    heatmaps = rng.gamma(2.0, 1.0, (4, 48, 64)).astype(np.float32)
    masks = np.zeros(heatmaps.shape, dtype=bool)
    masks[0, 4:40, 5:50] = True
    masks[1, 2:5, 2:6] = masks[1, 30:33, 40:45] = True
    masks[2, 20:28, 20:22] = True
    heatmaps[masks] += gain
    return heatmaps, masks


def test_pixel_auroc_is_scikit_learns_over_all_pixels() -> None:
    heatmaps, masks = scene()
    expected = roc_auc_score(masks.ravel(), heatmaps.ravel())
    assert metrics.pixel_auroc([tallied(heatmaps, masks)]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("decimals", [1, 6])  # with ties, and without
def test_average_precision_is_scikit_learns_over_all_pixels(decimals: int) -> None:
    heatmaps, masks = scene()
    heatmaps = heatmaps.round(decimals)
    expected = average_precision_score(masks.ravel(), heatmaps.ravel())
    assert metrics.pixel_average_precision([tallied(heatmaps, masks)]) == pytest.approx(expected, abs=1e-4)
    assert metrics.pixel_average_precision([]) is None


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0.05, 0.3])
@pytest.mark.parametrize("gain", [0.0, 1.0, 4.0])
def test_aupro_is_anomalibs(gain: float, limit: float) -> None:
    from anomalib.metrics.aupro import _AUPRO

    heatmaps, masks = scene(gain=gain)
    peer = _AUPRO(fpr_limit=limit)
    peer.update(torch.from_numpy(heatmaps), torch.from_numpy(masks))
    found = metrics.aupro([tallied(heatmaps, masks)], fpr_limit=limit)
    assert found == pytest.approx(float(peer.compute()), abs=3e-4)


def test_tallies_of_parts_add_up_to_the_whole() -> None:
    heatmaps, masks = scene()
    parts = [tallied(heatmaps[:2], masks[:2]), tallied(heatmaps[2:], masks[2:])]
    whole = [tallied(heatmaps, masks)]
    assert metrics.aupro(parts) == pytest.approx(metrics.aupro(whole))
    assert metrics.pixel_auroc(parts) == pytest.approx(metrics.pixel_auroc(whole))


def test_a_small_region_weighs_as_much_as_a_large_one_in_aupro_alone() -> None:
    masks = np.zeros((1, 40, 40), dtype=bool)
    masks[0, :20, :20] = masks[0, 38, 38] = True
    only_large, only_small = masks.astype(np.float32), masks.astype(np.float32)
    only_large[0, 38, 38] = only_small[0, :20, :20] = -1.0
    large, small = tallied(only_large, masks), tallied(only_small, masks)
    assert metrics.aupro([large]) == pytest.approx(metrics.aupro([small]), abs=0.01)
    assert (metrics.pixel_auroc([large]) or 0) > 0.9 > (metrics.pixel_auroc([small]) or 1)


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False), min_size=2, max_size=30))
def test_levels_keep_the_order_of_energies_of_either_sign(energies: list[float]) -> None:
    array = np.array([energies], dtype=np.float32)
    order = np.argsort(array[0], kind="stable")
    assert (np.diff(metrics._levels(array)[0][order]) >= 0).all()


def test_energies_a_thousandth_apart_are_told_apart() -> None:
    levels = metrics._levels(np.array([[1.0, 1.001, -1.0, -1.001, 0.0]], dtype=np.float32))[0]
    assert levels[3] < levels[2] < levels[4] < levels[0] < levels[1]


def test_a_perfect_ranking_has_figures_of_one_and_its_reverse_of_zero() -> None:
    _, masks = scene()
    perfect = [tallied(masks.astype(np.float32), masks)]
    reverse = [tallied(1 - masks.astype(np.float32), masks)]
    assert metrics.pixel_auroc(perfect) == 1.0
    assert metrics.aupro(perfect) == 1.0
    assert (metrics.pixel_auroc(reverse), metrics.aupro(reverse)) == (0.0, pytest.approx(0.0))
    assert metrics.image_auroc([False, True], [1.0, 2.0]) == 1.0
    assert metrics.image_auroc([False, True], [2.0, 1.0]) == 0.0


def test_a_figure_that_the_data_cannot_give_is_none() -> None:
    heatmaps, masks = scene()
    nothing = [tallied(heatmaps, np.zeros_like(masks))]
    assert metrics.pixel_auroc(nothing) is None and metrics.aupro(nothing) is None
    assert metrics.pixel_auroc([]) is None
    assert metrics.image_auroc([True, True], [1.0, 2.0]) is None
    assert metrics.best_f1([False, False], [1.0, 2.0]) is None


def test_best_f1_is_the_best_over_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(60) < 0.4
    scores = rng.normal(size=60) + labels

    def f1(threshold: float) -> float:
        called = scores >= threshold
        return 2 * (called & labels).sum() / (called.sum() + labels.sum())

    assert metrics.best_f1(labels.tolist(), scores.tolist()) == pytest.approx(max(map(f1, scores)))


@pytest.mark.parametrize("decimals", [1, 6])  # with ties, and without
def test_image_figures_are_scikit_learns(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    labels = rng.random(200) < 0.3
    scores = (rng.normal(size=200) + labels).round(decimals)
    assert metrics.image_auroc(list(labels), list(scores)) == pytest.approx(roc_auc_score(labels, scores))
    precision, recall, _ = precision_recall_curve(labels, scores)
    expected = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
    assert metrics.best_f1(list(labels), list(scores)) == pytest.approx(expected)


@pytest.mark.slow
def test_the_interval_is_that_of_drawing_images_anew() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([True, False, False] * 20)
    scores = np.round(0.7 * (rng.normal(size=60) + labels))  # many ties
    draws = []
    for _ in range(400):
        drawn = np.concatenate(
            [rng.choice(np.flatnonzero(labels == kind), (labels == kind).sum()) for kind in (0, 1)]
        )
        draws.append(roc_auc_score(labels[drawn], scores[drawn]))
    interval = metrics.image_auroc_interval(labels.tolist(), scores.tolist(), generator=rng)
    assert interval == pytest.approx(tuple(np.quantile(draws, (0.025, 0.975))), abs=0.03)


def test_the_interval_holds_the_figure_and_narrows_with_more_images() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (40, 400):
        labels = [True, False] * (count // 2)
        scores = [float(rng.normal() + label) for label in labels]
        interval = metrics.image_auroc_interval(labels, scores, generator=np.random.default_rng(1))
        assert interval is not None
        assert interval[0] < (metrics.image_auroc(labels, scores) or 0) < interval[1]
        widths.append(interval[1] - interval[0])
    assert widths[1] < widths[0] / 2
