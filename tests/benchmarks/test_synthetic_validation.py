"""A law of the figures that defaults are chosen by."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.detection.synthetic_validation import ValidationImages, measure_detection
from energyad.scoring.scorer import Scores


def as_they_are(features: torch.Tensor) -> Scores:
    heatmaps = features[:, 0]
    return Scores(heatmaps.amax(dim=(1, 2)), heatmaps)


def test_good_pixels_count_as_if_there_were_as_many_good_images_as_defective_ones() -> None:
    heatmaps = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    masks = np.zeros((8, 16, 16), dtype=bool)
    masks[2:, 4:9, 4:9] = True
    heatmaps[2:, :, 4:9, 4:9] += 0.5
    heatmaps[:2] += 0.4
    defective = masks.any(axis=(1, 2))
    found = measure_detection(ValidationImages(heatmaps, defective, masks), as_they_are)
    places = [0, 1, 0, 1, 0, 1, *range(2, 8)]
    even = measure_detection(
        ValidationImages(heatmaps[places], defective[places], masks[places]), as_they_are
    )
    assert found == even and found["pixel_auroc"] < 0.9
    fewer = measure_detection(ValidationImages(heatmaps[:4], defective[:4], masks[:4]), as_they_are)
    assert fewer["pixel_auroc"] != found["pixel_auroc"]
