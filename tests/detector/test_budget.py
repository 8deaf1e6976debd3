"""Laws of a budget of milliseconds: the largest size within it, of those that the images give a reason for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from energyad import AnomalyDetector
from energyad.detector import budget
from energyad.detector.budget import SizeTime, sizes_down_to
from energyad.errors import DataError, ImageError, SettingsError
from energyad.settings import FitSettings
from tests.quick import TINY

FIXED_MS = 4.0
SETTINGS = TINY.with_values({"input.image_size": "auto", "memory_bank.rerank_banks": 0})


SHAPES = {"square": (400, 400), "wide": (300, 600), "in tiles": (120, 960)}


def noise(shape: tuple[int, int]) -> Sequence[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 255, (4, *shape, 3), dtype=np.uint8))


@pytest.fixture(params=list(SHAPES))
def images(request: pytest.FixtureRequest) -> Sequence[np.ndarray]:
    return noise(SHAPES[request.param])


def model_time(num_pixels: int) -> float:
    """A time that grows with the pixels of all tiles, as a machine's does."""
    return FIXED_MS + 2e-4 * num_pixels


def pixels_of(detector: AnomalyDetector) -> int:
    height, width = detector.image_size
    return height * width * detector.manifest.input.tiles.count


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def milliseconds(detector: AnomalyDetector, images: Sequence[object], **_: object) -> float:
        assert images
        return model_time(pixels_of(detector))

    monkeypatch.setattr(budget, "milliseconds", milliseconds)


@pytest.fixture
def no_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that have a size and nothing else."""

    def fit(_: Sequence[np.ndarray], *, settings: FitSettings, **__: object) -> SimpleNamespace:
        options = settings.input
        manifest = SimpleNamespace(input=SimpleNamespace(tiles=options.tiling))
        return SimpleNamespace(image_size=options.network_shape, manifest=manifest)

    monkeypatch.setattr(AnomalyDetector, "fit", fit)


def every_size(images: Sequence[np.ndarray]) -> list[SizeTime]:
    """Each size that a budget may choose, the largest first."""
    sizes = budget._sizes(SETTINGS, [image.shape[:2] for image in images])
    return [
        SizeTime(sized.input.network_shape, sized.input.tiles, model_time(budget._num_pixels(sized)))
        for sized in sizes
    ]


@pytest.mark.usefixtures("no_fits")
@pytest.mark.parametrize("place", [0, 2, -1])
def test_the_last_size_is_the_largest_within_the_budget(images: Sequence[np.ndarray], place: int) -> None:
    sizes = every_size(images)
    assert sorted(sizes, key=lambda size: -size.num_pixels) == sizes
    measured = list(sizes_down_to(sizes[place].milliseconds, images, SETTINGS, threads=1))
    assert measured[-1] == sizes[place]
    assert all(size.milliseconds > sizes[place].milliseconds for size in measured[:-1])


@pytest.mark.slow
def test_models_of_a_size_are_as_large_as_the_fit_that_follows() -> None:
    images = noise(SHAPES["in tiles"])
    size = every_size(images)[2]
    measured = list(sizes_down_to(size.milliseconds, images, SETTINGS, threads=1))
    assert measured[-1] == size
    detector = AnomalyDetector.fit(images, settings=size.chosen(SETTINGS), threads=1)
    assert model_time(pixels_of(detector)) == size.milliseconds
    assert size.described == detector.manifest.input.described


@pytest.mark.usefixtures("no_fits")
def test_what_no_size_can_keep_to_is_said_in_one_line(images: Sequence[np.ndarray]) -> None:
    with pytest.raises(SettingsError, match=r"within 1 ms on this machine \(.* px took \d+ ms\)") as raised:
        list(sizes_down_to(1, images, SETTINGS, threads=1))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input.image_size": 256}, "give one of the two"),
        ({"features.backbone": "vit_tiny_patch16_224"}, "one size alone"),
    ],
)
def test_a_budget_without_a_choice_is_refused(change: dict[str, object], message: str) -> None:
    images = [np.zeros((300, 300, 3), np.uint8)] * 2
    with pytest.raises(SettingsError, match=message):
        next(sizes_down_to(50, images, SETTINGS.with_values(change)))
    with pytest.raises(DataError, match="at least 2"):
        next(sizes_down_to(50, images[:1], SETTINGS))


@pytest.mark.usefixtures("no_fits")
def test_an_image_that_cannot_be_read_is_an_error_unless_it_may_be_left_out(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    images = [*noise((300, 300)), bad]
    with pytest.raises(ImageError, match=r"bad\.png"):
        next(sizes_down_to(50, images, SETTINGS))
    assert next(sizes_down_to(50, images, SETTINGS, skip_bad=True)).image_size == (288, 288)
    with pytest.raises(DataError, match="can be read"):
        next(sizes_down_to(50, [bad, bad], SETTINGS, skip_bad=True))


@pytest.mark.slow
def test_a_true_clock_counts_milliseconds(
    fitted_detector: AnomalyDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    ticks = iter(np.arange(1000) * 0.25)
    monkeypatch.setattr(budget.time, "perf_counter", lambda: next(ticks))
    calls: list[object] = []
    score: Callable[..., object] = fitted_detector.score_image

    def counted(_: AnomalyDetector, image: object, **options: object) -> object:
        calls.append(image)
        return score(image, **options)

    monkeypatch.setattr(AnomalyDetector, "score_image", counted)
    images = [np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 9, np.uint8)]
    assert budget.milliseconds(fitted_detector, images, max_pixels=10**6) == 250
    assert len(calls) == budget.NUM_WARM_UP + budget.NUM_TIMED
    assert calls[0] is calls[2] and calls[1] is calls[3] and calls[0] is not calls[1]
