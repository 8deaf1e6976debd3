"""Laws of planted patches: they are those that defects cover, of every image, under its own light and other light."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from energyad.data.defect_kinds import KINDS
from energyad.data.defects import SyntheticDefect, draw_defect
from energyad.features.grids import Grid, Scale
from energyad.fitting import synthetic
from energyad.fitting.context import FitContext
from energyad.fitting.extraction import extract
from energyad.fitting.synthetic import (
    MIN_COPIES,
    MIN_COVERAGE,
    draw_synthetic_copy,
    drawing_fields,
    synthetic_patches,
)
from energyad.runtimes.plan import Plan
from energyad.settings import FitSettings

GRID = Grid.square(image_size=64, size=8, margin=2)


class Brightness:
    """A backbone of one channel: each inner patch's mean."""

    plan = Plan(batch_size=2, concurrency=2, threads=1, allowed=2)
    fingerprint = "brightness"

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def run(self, pixels: np.ndarray) -> np.ndarray:
        self.shown += list(pixels)
        means = pixels.reshape(len(pixels), 8, 8, 8, 8, 3).mean(axis=(2, 4, 5))
        return means[:, None, 2:-2, 2:-2].astype(np.float32)


def greys(count: int, size: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(118, 138, (size, size, 3)).astype(np.uint8) for _ in range(count)]


def a_context(session: Any, options: Mapping[str, Any] = MappingProxyType({})) -> FitContext:
    settings = FitSettings().with_values({"input.image_size": 64, **options})
    return FitContext(settings=settings, session=session, grid=GRID, scales=(Scale(0, 1),))


def patches(
    images: list[np.ndarray], session: Brightness, options: Mapping[str, Any] = MappingProxyType({})
) -> torch.Tensor:
    [found] = synthetic_patches(images, a_context(session, options))
    return found


def test_none_are_planted_where_none_are_asked() -> None:
    session = Brightness()
    assert len(patches(greys(3), session, {"synthetic_defects.per_image": 0})) == 0 == len(session.shown)


@pytest.mark.slow
def test_the_same_seed_plants_the_same() -> None:
    one, same, other = (patches(greys(40), Brightness(), {"seed": seed}) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.slow
def test_only_kinds_that_are_asked_for_are_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def recorded(image: np.ndarray, **options: Any) -> SyntheticDefect:
        found.append(draw_defect(image, **options))
        return found[-1]

    monkeypatch.setattr(synthetic, "draw_defect", recorded)
    synthetic_patches(greys(30), a_context(Brightness()), kinds=("spot", "stain"))
    assert {defect.kind for defect in found} == {"spot", "stain"}
    synthetic_patches(greys(30), a_context(Brightness()))
    assert {defect.kind for defect in found} == set(KINDS)


@pytest.mark.slow
def test_of_few_images_there_are_several_copies_each_and_of_many_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few, some, many = Brightness(), Brightness(), Brightness()
    patches(greys(5), few)
    patches(greys(MIN_COPIES), some)
    assert (len(few.shown), len(some.shown)) == (65, MIN_COPIES)
    assert len({image.tobytes() for image in few.shown}) == 65
    monkeypatch.setattr(synthetic, "MAX_COPIES", 30)
    monkeypatch.setattr(synthetic, "MIN_COPIES", 10)
    patches(greys(MIN_COPIES), many)
    assert len(many.shown) == 22


def test_covered_patches_are_those_that_the_defect_changes() -> None:
    rng, settings = (
        np.random.default_rng(1),
        FitSettings().with_values(
            {"input.image_size": 64, "augmentation.photometric_jitter": 0.0, "synthetic_defects.per_image": 2}
        ),
    )
    for image in greys(20, 128):
        [field] = drawing_fields(image, settings=settings, max_tiles=1)
        copy, share = draw_synthetic_copy(field, grid=GRID, settings=settings, rng=rng)
        plain, _ = draw_synthetic_copy(
            field,
            grid=GRID,
            settings=FitSettings().with_values(
                {
                    "input.image_size": 64,
                    "augmentation.photometric_jitter": 0.0,
                    "synthetic_defects.per_image": 0,
                }
            ),
            rng=rng,
        )
        changed = np.abs(copy.astype(int) - plain).reshape(8, 8, 8, 8, 3).max(axis=(1, 3, 4))[2:-2, 2:-2]
        assert share.shape == (4, 4)
        assert (changed[share == 0] == 0).all() and (changed[share >= MIN_COVERAGE] > 0).all()


def test_defects_are_planted_in_the_judged_area_alone() -> None:
    rng, settings = (
        np.random.default_rng(1),
        FitSettings().with_values({"input.image_size": 64, "synthetic_defects.per_image": 1}),
    )
    mask = np.zeros((64, 64), dtype=bool)
    mask[24:40, 24:40] = True
    shares = np.stack(
        [
            draw_synthetic_copy(image, grid=GRID, settings=settings, rng=rng, roi_mask=mask)[1]
            for image in greys(30, 128)
        ]
    )
    outside = np.ones((4, 4), dtype=bool)
    outside[1:3, 1:3] = False
    assert (shares[:, outside] == 0).all()
    hit = shares.max(axis=(1, 2)) > 0  # of defects anywhere in the image hardly any would
    assert hit.mean() > 0.9


@pytest.mark.slow
def test_what_is_planted_differs_from_what_is_good() -> None:
    images = greys(60)
    good = extract(images, a_context(Brightness(), {"augmentation.photometric_jitter": 0.0}))
    found = patches(images, Brightness(), {"augmentation.photometric_jitter": 0.0}).float()
    good_spread = float(np.std(good.features.astype(np.float32)))
    assert found.shape[1] == 1 and len(found) > 60
    assert float((found - 127.5).abs().mean()) > 5 * good_spread


@pytest.mark.slow
def test_planted_copies_lie_under_other_light_too() -> None:
    one, relit = Brightness(), Brightness()
    patches(greys(64), one, {"augmentation.photometric_jitter": 0.0})
    patches(greys(64), relit, {"augmentation.photometric_jitter": 0.5})
    spread = [np.std([np.median(image) for image in session.shown]) for session in (one, relit)]
    assert spread[1] > 5 * spread[0]


@pytest.mark.parametrize(
    ("own", "drawn"), [((40, 50), (64, 64)), ((100, 90), (100, 90)), ((500, 100), (128, 100))]
)
def test_defects_are_drawn_at_the_images_own_size_within_bounds(
    own: tuple[int, int], drawn: tuple[int, int]
) -> None:
    image = np.zeros((*own, 3), np.uint8)
    [field] = drawing_fields(image, settings=FitSettings().with_values({"input.image_size": 64}), max_tiles=1)
    assert field.shape[:2] == drawn


def test_tiles_are_planted_in_by_themselves() -> None:
    settings = FitSettings().with_values(
        {"input.image_size": 64, "input.tiles": (2, 3), "input.tile_overlap": 0.0}
    )
    small, large = np.zeros((128, 192, 3), np.uint8), np.zeros((256, 384, 3), np.uint8)
    assert [tile.shape[0] for tile in drawing_fields(small, settings=settings, max_tiles=4)] == [64] * 4
    assert [tile.shape[0] for tile in drawing_fields(large, settings=settings, max_tiles=9)] == [128] * 6
