"""Laws of altered copies: how many are made of which images, and when good parts count as coming in any rotation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from energyad.features.grids import Grid, Scale
from energyad.fitting import augmented
from energyad.fitting.augmented import (
    RotatedCopies,
    comes_in_any_rotation,
    inscribed,
    photometric_features,
    rotated_copies,
)
from energyad.fitting.context import FitContext
from energyad.fitting.extraction import extract
from energyad.settings import FitSettings

ONE = Scale(0, 1)


class MeanGrey:
    """A backbone with one patch and one channel: the image's mean grey value."""

    fingerprint = "mean grey"
    plan = SimpleNamespace(workers=1)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.mean(axis=(1, 2, 3), dtype=np.float32).reshape(-1, 1, 1, 1)


def images(count: int) -> list[np.ndarray]:
    return [np.full((32, 32, 3), 100 + place % 50, np.uint8) for place in range(count)]


def a_context(session: Any = None, *, scale: Scale = ONE, **values: Any) -> FitContext:
    settings = FitSettings().with_values({"input.image_size": 64, **values})
    grid = Grid.square(image_size=64, size=1, margin=0)
    return FitContext(settings=settings, session=session or MeanGrey(), grid=grid, scales=(scale,))


def jittered(count: int, seed: int = 0, strength: float = 0.15) -> np.ndarray:
    context = a_context(**{"augmentation.photometric_jitter": strength, "seed": seed})
    return photometric_features(images(count), context).features


def rotated(count: int, *, num_fitted: int, rotation: str) -> RotatedCopies:
    context = a_context(**{"augmentation.rotation": rotation})
    good = extract(images(count), context)
    return rotated_copies(good, images(count), context, num_fitted=num_fitted)


@pytest.mark.parametrize("rotation", ["on", "auto"])
@pytest.mark.parametrize(("tiles", "of_copies"), [((1, 2), 2), ((2, 2), 3), ((3, 4), 3)])
def test_rotated_copies_of_tiled_images_have_as_many_tiles_as_there_is_room_for(
    rotation: str, tiles: tuple[int, int], of_copies: int
) -> None:
    """Of a dozen images all tiles are seen, and of hundreds of copies some."""
    context = a_context(**{"augmentation.rotation": rotation, "input.tiles": tiles})
    good = extract(images(12), context)
    assert good.features.shape[1] == tiles[0] * tiles[1]
    copies = rotated_copies(good, images(12), context, num_fitted=10)
    assert copies.count == 240  # an even grey looks alike in every rotation
    assert copies.patches.shape == (12, 20 * of_copies, 1)


def test_few_images_have_many_jittered_copies_and_of_many_images_not_all_have_one() -> None:
    assert len(jittered(3)) >= augmented.MIN_JITTERED
    assert len(jittered(augmented.MIN_JITTERED + 1)) == augmented.MIN_JITTERED + 1
    assert len(jittered(augmented.MAX_JITTERED + 1)) <= augmented.MAX_JITTERED


def test_every_copy_has_its_own_light_from_the_seed() -> None:
    copies = jittered(2)[::2].ravel()  # of one image
    assert len(np.unique(copies)) > len(copies) / 2
    assert (jittered(2) == jittered(2)).all()
    assert (jittered(2) != jittered(2, seed=1)).any()


def test_no_jitter_means_no_copies() -> None:
    assert len(jittered(3, strength=0.0)) == 0


def test_rotated_copies_belong_to_their_image_and_are_made_of_few_alone() -> None:
    few = rotated(5, num_fitted=4, rotation="on")
    assert few.count >= augmented.MIN_ROTATED and few.patches.shape == (5, few.count // 5, 1)
    own = torch.tensor([100.0 + place for place in range(5)]).half()
    assert (few.patches == own[:, None, None]).all()  # of an even grey, turned, nothing changes
    for refused in (
        rotated(5, num_fitted=4, rotation="off"),
        rotated(augmented.MIN_ROTATED + 8, num_fitted=augmented.MIN_ROTATED, rotation="on"),
        rotated(augmented.MIN_COMPARED - 1, num_fitted=2, rotation="auto"),  # too few to see
    ):
        assert refused.count == 0 == refused.patches.numel()
    assert rotated(2, num_fitted=1, rotation="on").count > 0


def parts(count: int, *, shift: float, seed: int, size: int) -> Tensor:
    """Patches of images, `size` of a thousand of a part that lies `shift` away from where background lies."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, 1000, 8, generator=generator)
    drawn[:, :size, 0] += shift
    return drawn[:, torch.randperm(1000, generator=generator)].half()


@pytest.mark.slow
@pytest.mark.parametrize("size", [30, 200, 1000])  # background alone is as near in every direction
@pytest.mark.parametrize("count", [4, 16, 30])
def test_parts_come_in_any_rotation_where_rotated_ones_are_as_near_to_others(count: int, size: int) -> None:
    good = parts(count, shift=9, seed=0, size=size)
    alike = [parts(count, shift=9, seed=seed, size=size) for seed in range(1, 7)]
    strange = [parts(count, shift=18, seed=seed, size=size) for seed in range(11, 31)]
    generator = torch.Generator().manual_seed(0)
    assert comes_in_any_rotation(good, torch.stack(alike, dim=1), generator=generator)
    assert not comes_in_any_rotation(good, torch.stack(strange, dim=1), generator=generator)
    seldom = torch.stack([alike[0], *strange], dim=1)  # of a part that looks alike in one other direction
    assert not comes_in_any_rotation(good, seldom, generator=generator)


def test_corners_of_a_rotated_image_are_left_out() -> None:
    shown = inscribed(1, 28, 28)[0]
    assert shown[14, 0] and shown[0, 14] and not shown[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (shown == shown.T).all() and (shown == shown[::-1]).all()
    assert 0.7 < shown.mean() < 0.8
    assert inscribed(2, 28, 28).all()


def test_of_a_rotated_strip_its_middle_is_shown_in_every_rotation() -> None:
    wide, tall = inscribed(1, 12, 40)[0], inscribed(1, 40, 12)[0]
    assert (wide == tall.T).all() and wide[:, 20].all()
    assert not wide[:, :13].any() and not wide[:, -13:].any()


def test_rotation_is_found_out_from_the_images_themselves() -> None:
    assert rotated(8, num_fitted=6, rotation="auto").count > 0  # an even grey has no direction


class MeanGreyBesideDrift(MeanGrey):
    """Another channel that is unlike at every look."""

    def __init__(self) -> None:
        self.looks = 0

    def run(self, pixels: np.ndarray) -> np.ndarray:
        self.looks += 1
        own = super().run(pixels)
        return np.concatenate([own, np.full_like(own, 500 * self.looks)], axis=1)


def test_the_finest_scale_decides_whether_parts_come_in_any_rotation() -> None:
    one, both = (a_context(MeanGreyBesideDrift(), scale=scale) for scale in (ONE, Scale(0, 2)))
    good = extract(images(8), one)
    found = rotated_copies(good, images(8), one, num_fitted=6)
    assert found.count > 0 and found.patches.shape[-1] == 1
    assert rotated_copies(good, images(8), both, num_fitted=6).count == 0


def test_copies_are_appended_to_patches_of_the_finest_scale_alone() -> None:
    own = [torch.zeros(3, 4, 2).half(), torch.zeros(3, 1, 5).half()]
    copies = torch.arange(4.0).half()[:, None, None].expand(4, 6, 2)
    first, other = RotatedCopies(copies, 4).append_to(own, [3, 0, 2])
    assert torch.equal(first[:, :4], own[0]) and first[:, 4:, 0].tolist() == [[3.0] * 6, [0.0] * 6, [2.0] * 6]
    assert other is own[1]
