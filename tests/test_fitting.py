from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from energyad import fitting, heads
from energyad.fitting import relit_features
from energyad.heads import gather_patches
from energyad.progress import Silent
from energyad.settings import MOST_PROTOTYPES, FitSettings


class MeanGrey:
    """A backbone with one patch and one channel: the image's mean grey value."""

    fingerprint = "mean grey"
    plan = SimpleNamespace(workers=1)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.mean(axis=(1, 2, 3), dtype=np.float32).reshape(-1, 1, 1, 1)


def images(count: int) -> list[np.ndarray]:
    return [np.full((32, 32, 3), 100 + place % 50, np.uint8) for place in range(count)]


def relit(count: int, **options: Any) -> np.ndarray:
    settings = FitSettings(image_size=64, **options)
    session: Any = MeanGrey()
    return relit_features(images(count), session, settings=settings, progress=Silent()).features


def test_few_images_are_seen_in_many_lights_and_many_images_not_all() -> None:
    assert len(relit(3)) >= fitting.FEWEST_RELIT
    assert len(relit(fitting.FEWEST_RELIT + 1)) == fitting.FEWEST_RELIT + 1
    assert len(relit(fitting.MOST_RELIT + 1)) <= fitting.MOST_RELIT


def test_every_copy_has_a_light_of_its_own_that_the_seed_decides() -> None:
    copies = relit(2)[::2].ravel()  # of one image
    assert len(np.unique(copies)) > len(copies) / 2
    assert (relit(2) == relit(2)).all()
    assert (relit(2) != relit(2, seed=1)).any()


def test_no_lighting_means_no_copies() -> None:
    assert len(relit(3, lighting=0.0)) == 0


def test_patches_beyond_the_limit_are_thinned_alike_in_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.arange(5 * 4 * 4, dtype=np.float16).reshape(5, 4, 4, 1)
    generator = torch.Generator().manual_seed(0)
    everything = gather_patches(features, [1, 3], generator=generator)
    assert everything.flatten().tolist() == [*range(16, 32), *range(48, 64)]
    monkeypatch.setattr(heads, "MOST_PATCHES", 20)
    some = gather_patches(features, range(5), generator=generator).flatten()
    assert len(some) == 20
    assert torch.bincount((some // 16).long()).tolist() == [4] * 5
    assert len(some.unique()) == 20


def test_a_model_of_several_categories_has_prototypes_for_each_up_to_a_limit() -> None:
    settings = FitSettings(num_prototypes=1000, seed=3)
    assert [settings.prototypes_of_each(count) for count in (1, 3, 4, 8)] == [1000, 1000, 1000, 512]
    assert (
        15 * settings.prototypes_of_each(15) <= MOST_PROTOTYPES < 15 * (settings.prototypes_of_each(15) + 1)
    )
    many = FitSettings(num_prototypes=2 * MOST_PROTOTYPES)
    assert many.prototypes_of_each(1) == 2 * MOST_PROTOTYPES  # a setting's own word
    assert many.prototypes_of_each(2 * MOST_PROTOTYPES) == 1
