"""Laws of a category's fit: what lies outside the region of interest teaches nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from energyad.energy.patch_energy import MultiScaleEnergy
from energyad.features.grids import Grid, Scale
from energyad.fitting.category import CategoryFit, fit_category
from energyad.fitting.context import FitContext
from energyad.fitting.patches import gather_patches
from energyad.runtimes.plan import Plan
from energyad.settings import FitSettings

GRID = Grid.square(image_size=64, size=8, margin=2)
SETTINGS = FitSettings().with_values(
    {
        "input.image_size": 64,
        "augmentation.rotation": "off",
        "heatmap.smoothing": 0.0,
        "energy.width": 8,
        "energy.bottleneck": 2,
        "memory_bank.size": 20,
        "memory_bank.directions": 3,
        "memory_bank.rerank_banks": 1,
        "memory_bank.rerank_bank_size": 30,
        "energy.pretrain_steps": 200,
        "synthetic_defects.discriminator_iterations": 20,
        "dxmi.iterations": 0,
    }
)
LEFT = np.zeros((64, 64), dtype=bool)
LEFT[:, :24] = True  # of the inner patches' columns the first, and half of the second weighs in it

WHOLE = Scale(0, 1)
SCALES = (Scale(0, 2), Scale(2, 3, factor=2))


class Colours:
    """A backbone of three channels: each inner patch's mean colour."""

    plan = Plan(batch_size=2, concurrency=1, threads=1, allowed=1)
    fingerprint = "colours"

    def run(self, pixels: np.ndarray) -> np.ndarray:
        means = pixels.reshape(len(pixels), 8, 8, 8, 8, 3).mean(axis=(2, 4))
        return means.transpose(0, 3, 1, 2)[:, :, 2:-2, 2:-2].astype(np.float32)


def scenes(clutter: int) -> list[np.ndarray]:
    """The same parts beside clutter of this seed."""
    parts, beside = (np.random.default_rng(seed).integers(0, 256, (12, 64, 64, 3)) for seed in (0, clutter))
    images = np.concatenate([parts[:, :, :32], beside[:, :, 32:]], axis=2).astype(np.uint8)
    return list(images)


def fit(images: list[np.ndarray], mask: np.ndarray | None, changes: Mapping[str, Any]) -> CategoryFit:
    return fit_category("part", images, a_context(changes, roi_mask=mask)).with_held_out()


def a_context(changes: Mapping[str, Any] | None = None, **options: Any) -> FitContext:
    session: Any = Colours()
    settings = SETTINGS.with_values(changes or {})
    return FitContext(settings=settings, session=session, grid=GRID, scales=SCALES, **options)


def have_equal_energies(one: CategoryFit, other: CategoryFit) -> bool:
    weights, others = one.energy.state_dict(), other.energy.state_dict()
    return all(
        weights[name].shape == others[name].shape and torch.equal(weights[name], others[name])
        for name in weights
    )


@pytest.mark.slow
@pytest.mark.parametrize("light", [0.0, 0.15])
@pytest.mark.parametrize(("mask", "alike"), [(LEFT, True), (None, False)])
def test_what_lies_outside_the_region_of_interest_is_not_learned(
    mask: np.ndarray | None, alike: bool, light: float
) -> None:
    changes = {"synthetic_defects.per_image": 0, "augmentation.photometric_jitter": light}
    fits = [fit(scenes(clutter), mask, changes) for clutter in (1, 2)]
    assert have_equal_energies(*fits) == alike


def test_tiles_that_were_drawn_are_learned_as_a_whole() -> None:
    """Where they lay is not known."""
    features = np.arange(3 * 8, dtype=np.float16).reshape(3, 8, 1, 1, 1)
    of_all = torch.tensor([True, False] * 8)
    assert gather_patches(features, [1], scale=WHOLE, generator=torch.Generator(), in_roi=of_all).numel() == 8
    of_these = torch.tensor([True, False] * 4)
    found = gather_patches(features, [2, 1], scale=WHOLE, generator=torch.Generator(), in_roi=of_these)
    assert [sorted(image) for image in found.flatten(1).tolist()] == [[16, 18, 20, 22], [8, 10, 12, 14]]


@pytest.mark.slow
def test_rotated_copies_show_the_region_of_interest_alone() -> None:
    of_all, of_left = (
        fit_category("part", scenes(1), a_context({"augmentation.rotation": "on"}, roi_mask=mask)).rotated
        for mask in (None, LEFT)
    )
    assert of_all.count == of_left.count > 0
    assert of_left.patches.shape[1] * 2 == of_all.patches.shape[1]


@pytest.mark.parametrize(("rotation", "scales"), [("off", SCALES), ("on", SCALES[:1])])
def test_where_rotated_copies_are_fitted_on_the_image_at_half_its_size_does_not_count(
    rotation: str, scales: tuple[Scale, ...]
) -> None:
    changes = {
        "augmentation.rotation": rotation,
        "energy.coarse_weight": 0.25,
        "synthetic_defects.per_image": 0,
    }
    fitted = fit_category("part", scenes(1), a_context(changes))
    for energy in (fitted.energy, fitted.with_held_out().energy):
        assert len(energy.by_scale()) == len(scales)
        if isinstance(energy, MultiScaleEnergy):
            assert energy.weights.tolist() == [0.75, 0.25]
    assert fitted.context.scales == scales
