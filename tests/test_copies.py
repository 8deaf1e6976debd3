"""Laws of copies: of which images how many are made, and when good parts count as coming in any direction."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from energyad.features.grids import Scale
from energyad.fitting import augmented
from energyad.fitting.augmented import (
    RotatedCopies,
    comes_in_any_rotation,
    inscribed,
    photometric_features,
    rotated_copies,
)
from energyad.fitting.extraction import GoodFeatures, extract
from energyad.progress import NullProgress
from energyad.settings import FitSettings


class MeanGrey:
    """A backbone with one patch and one channel: the image's mean grey value."""

    fingerprint = "mean grey"
    plan = SimpleNamespace(workers=1)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.mean(axis=(1, 2, 3), dtype=np.float32).reshape(-1, 1, 1, 1)


def images(count: int) -> list[np.ndarray]:
    return [np.full((32, 32, 3), 100 + place % 50, np.uint8) for place in range(count)]


def relit(count: int, seed: int = 0, strength: float = 0.15) -> np.ndarray:
    settings = FitSettings().with_values(
        {"input.image_size": 64, "augmentation.photometric_jitter": strength, "seed": seed}
    )
    session: Any = MeanGrey()
    return photometric_features(images(count), session, settings=settings, progress=NullProgress()).features


def turned(count: int, *, num_fitted: int, rotation: str) -> RotatedCopies:
    session: Any = MeanGrey()
    how: dict[str, Any] = {
        "settings": FitSettings().with_values({"input.image_size": 64, "augmentation.rotation": rotation}),
        "progress": NullProgress(),
    }
    good: GoodFeatures = extract(images(count), session, skip_bad=False, **how)
    return rotated_copies(
        good,
        images(count),
        session,
        scale=Scale(0, 1),
        num_fitted=num_fitted,
        **how,
    )


def test_few_images_are_seen_in_many_lights_and_many_images_not_all() -> None:
    assert len(relit(3)) >= augmented.MIN_JITTERED
    assert len(relit(augmented.MIN_JITTERED + 1)) == augmented.MIN_JITTERED + 1
    assert len(relit(augmented.MAX_JITTERED + 1)) <= augmented.MAX_JITTERED


def test_every_copy_has_a_light_of_its_own_that_the_seed_decides() -> None:
    copies = relit(2)[::2].ravel()  # of one image
    assert len(np.unique(copies)) > len(copies) / 2
    assert (relit(2) == relit(2)).all()
    assert (relit(2) != relit(2, seed=1)).any()


def test_no_lighting_means_no_copies() -> None:
    assert len(relit(3, strength=0.0)) == 0


def test_turned_copies_lie_beside_their_own_image_and_only_of_few() -> None:
    few = turned(5, num_fitted=4, rotation="on")
    assert few.count >= augmented.ENOUGH and few.patches.shape == (5, few.count // 5, 1)
    own = torch.tensor([100.0 + place for place in range(5)]).half()
    assert (few.patches == own[:, None, None]).all()  # of an even grey, turned, nothing changes
    for refused in (
        turned(5, num_fitted=4, rotation="off"),
        turned(augmented.ENOUGH + 8, num_fitted=augmented.ENOUGH, rotation="on"),
        turned(augmented.MIN_COMPARED - 1, num_fitted=2, rotation="auto"),  # too few to see
    ):
        assert refused.count == 0 == refused.patches.numel()
    assert turned(2, num_fitted=1, rotation="on").count > 0


def parts(count: int, *, shift: float, seed: int, size: int) -> Tensor:
    """Patches of images, `size` of a thousand of a part that lies `shift` away from where background lies."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, 1000, 8, generator=generator)
    drawn[:, :size, 0] += shift
    return drawn[:, torch.randperm(1000, generator=generator)].half()


@pytest.mark.parametrize("size", [30, 200, 1000])  # background alone is as near in every direction
@pytest.mark.parametrize("count", [4, 16, 60])
def test_parts_come_in_any_direction_where_turned_ones_are_as_near_to_others(count: int, size: int) -> None:
    good = parts(count, shift=9, seed=0, size=size)
    alike = [parts(count, shift=9, seed=seed, size=size) for seed in range(1, 7)]
    strange = [parts(count, shift=18, seed=seed, size=size) for seed in range(11, 31)]
    generator = torch.Generator().manual_seed(0)
    assert comes_in_any_rotation(good, torch.stack(alike, dim=1), generator=generator)
    assert not comes_in_any_rotation(good, torch.stack(strange, dim=1), generator=generator)
    seldom = torch.stack([alike[0], *strange], dim=1)  # of a part that looks alike in one other direction
    assert not comes_in_any_rotation(good, seldom, generator=generator)


def test_corners_of_a_turned_image_teach_nothing() -> None:
    shown = inscribed(28, 28).reshape(28, 28)
    assert shown[14, 0] and shown[0, 14] and not shown[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (shown == shown.T).all() and (shown == shown[::-1]).all()
    assert 0.7 < shown.mean() < 0.8
    assert inscribed(56, 28).all()  # two tiles


def test_found_out_from_the_images_themselves() -> None:
    assert turned(8, num_fitted=6, rotation="auto").count > 0  # an even grey has no direction


class MeanGreyBesideDrift(MeanGrey):
    """Another channel that is unlike at every look."""

    def __init__(self) -> None:
        self.looks = 0

    def run(self, pixels: np.ndarray) -> np.ndarray:
        self.looks += 1
        own = super().run(pixels)
        return np.concatenate([own, np.full_like(own, 500 * self.looks)], axis=1)


def test_one_scale_tells_whether_parts_come_in_any_direction() -> None:
    session: Any = MeanGreyBesideDrift()
    how: dict[str, Any] = {
        "settings": FitSettings().with_values({"input.image_size": 64}),
        "progress": NullProgress(),
    }
    good = extract(images(8), session, skip_bad=False, **how)
    options: dict[str, Any] = how | {"num_fitted": 6}
    found = rotated_copies(good, images(8), session, scale=Scale(0, 1), **options)
    assert found.count > 0 and found.patches.shape[-1] == 1
    both = rotated_copies(good, images(8), session, scale=Scale(0, 2), **options)
    assert both.count == 0


def test_copies_lie_beside_patches_of_the_first_scale_alone() -> None:
    own = [torch.zeros(3, 4, 2).half(), torch.zeros(3, 1, 5).half()]
    copies = torch.arange(4.0).half()[:, None, None].expand(4, 6, 2)
    first, other = RotatedCopies(copies, 4).beside(own, [3, 0, 2])
    assert torch.equal(first[:, :4], own[0]) and first[:, 4:, 0].tolist() == [[3.0] * 6, [0.0] * 6, [2.0] * 6]
    assert other is own[1]
