"""The largest input whose images are scored within a time, measured on this machine before a fit."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from energyad.detector.detector import AnomalyDetector
from energyad.errors import DataError, ImageError, SettingsError
from energyad.features import backbones
from energyad.fitting.fit import shape_input
from energyad.images.input_shape import AUTO_SIDES, STEP
from energyad.images.reading import DEFAULT_MAX_PIXELS, ImageLike, as_rgb
from energyad.images.tiling import Tiles
from energyad.model.manifest import InputSpec
from energyad.settings import FitSettings

MIN_SIDE: Final = 128
"""Of a square of as many pixels as the smallest input that is tried. Below it few defects are left to see."""
MAX_IMAGES: Final = 32
"""Good images that the models which are timed are fitted on; enough to fill the memory banks."""
NUM_WARM_UP: Final = 20
"""Images before those that are timed. After the first few, all threads score an image; see `OnnxRuntime`."""
NUM_TIMED: Final = 25
UNTRAINED: Final = {
    "energy.pretrain_steps": 0,
    "dxmi.iterations": 0,
    "synthetic_defects.discriminator_iterations": 1,
    "augmentation.rotation": "off",
}
"""Settings of a model of the same shapes, and so of the same speed, that takes seconds to make."""


@dataclass(frozen=True)
class SizeTime:
    """How long an image takes at one size of the input.

    Attributes:
        image_size: Height and width of the network's input, or of each tile, pixels.
        tiles: Rows and columns of tiles.
        milliseconds: From file to verdict and heatmap, one image after the other; the median.
    """

    image_size: tuple[int, int]
    tiles: tuple[int, int]
    milliseconds: float

    @property
    def num_pixels(self) -> int:
        """Of all tiles together."""
        return self.image_size[0] * self.image_size[1] * self.tiles[0] * self.tiles[1]

    @property
    def described(self) -> str:
        """The size for people, width first. See `InputSpec.described`."""
        rows, columns = self.tiles
        return InputSpec(image_size=self.image_size, tiles=Tiles(rows=rows, columns=columns)).described

    def chosen(self, settings: FitSettings) -> FitSettings:
        """Return settings of a fit at this size."""
        return settings.with_values({"input.image_size": self.image_size, "input.tiles": self.tiles})


def sizes_down_to(
    budget_ms: float,
    good_images: Sequence[ImageLike],
    settings: FitSettings,
    *,
    backbone_weights: Path | None = None,
    threads: int | None = None,
    skip_bad: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Iterator[SizeTime]:
    """Measure sizes of the input from the one that `auto` chooses downwards, until one keeps to the budget.

    An image's time is a fixed one plus one for each pixel, so sizes that no fixed time could make fast enough are
    passed over. The models are fitted on a few of the images and hardly trained, which changes no time.

    Args:
        budget_ms: Milliseconds an image may take, from file to verdict, one after the other.
        good_images: Those of the fit.
        settings: Of the fit; its image size is "auto".
        backbone_weights: Of the fit.
        threads: Of scoring; all cores where None.
        skip_bad: Leave out images that cannot be read; the fit says which.
        max_pixels: Files with more pixels are not decoded.

    Yields:
        Each size that was measured. The last one is the largest within the budget.

    Raises:
        SettingsError: The settings name a size, the backbone takes one size alone, or no size is fast enough.
        DataError: Fewer than two good images can be read.
        ImageError: An image cannot be read, unless `skip_bad`.

    Example:
        >>> *_, best = sizes_down_to(30, paths, FitSettings())
        >>> detector = AnomalyDetector.fit(paths, settings=best.chosen(FitSettings()))
    """
    if settings.input.image_size != "auto":
        raise SettingsError("a budget of milliseconds chooses the image size: give one of the two")
    if backbones.takes_one_size(settings.features.backbone):
        raise SettingsError(
            f"backbone '{settings.features.backbone}' takes images of one size alone, so a budget has no choice"
        )
    some = good_images[:: -(-len(good_images) // MAX_IMAGES)]
    shapes = {
        index: shape
        for index, image in enumerate(some)
        if (shape := _shape(image, max_pixels=max_pixels, skip_bad=skip_bad)) is not None
    }
    readable = [some[index] for index in shapes]
    if len(readable) < 2:
        raise DataError(f"{len(readable)} good images can be read; give at least 2")
    latest: SizeTime | None = None
    for sized in _sizes(settings, list(shapes.values())):
        if latest and latest.milliseconds * _num_pixels(sized) / latest.num_pixels > budget_ms:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few images
            detector = AnomalyDetector.fit(
                readable,
                settings=sized.with_values(UNTRAINED),
                backbone_weights=backbone_weights,
                threads=threads,
                max_pixels=max_pixels,
            )
        taken = milliseconds(detector, readable, max_pixels=max_pixels)
        latest = SizeTime(sized.input.network_shape, sized.input.tiles, taken)
        yield latest
        if taken <= budget_ms:
            return
    took = f" ({latest.described} took {latest.milliseconds:.0f} ms)" if latest else ""
    raise SettingsError(
        f"no input of {MIN_SIDE} or more pixels a side is scored within {budget_ms:g} ms on this machine{took}; "
        "give more, or --precision int8"
    )


def milliseconds(detector: AnomalyDetector, images: Sequence[ImageLike], *, max_pixels: int) -> float:
    """Return the median time of an image from file to verdict and heatmap, one after the other.

    Args:
        detector: That scores.
        images: They are taken in turn.
        max_pixels: Files with more pixels are not decoded.
    """
    taken = []
    for number in range(NUM_WARM_UP + NUM_TIMED):
        started = time.perf_counter()
        detector.score_image(images[number % len(images)], max_pixels=max_pixels).require()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken[NUM_WARM_UP:])


def _shape(image: ImageLike, *, max_pixels: int, skip_bad: bool) -> tuple[int, int] | None:
    """Height and width of an image; None of one that cannot be read and is to be left out."""
    try:
        height, width = as_rgb(image, max_pixels=max_pixels).shape[:2]
    except ImageError:
        if not skip_bad:
            raise
        return None
    return height, width


def _sizes(settings: FitSettings, shapes: Sequence[tuple[int, int]]) -> Iterator[FitSettings]:
    """Yield settings of each size, that of `auto` first, then smaller ones."""
    sides = range(AUTO_SIDES[1], MIN_SIDE - 1, -STEP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that differ: the fit says so
        sized = [shape_input(settings.with_values({"input.image_size": side}), shapes) for side in sides]
        largest = shape_input(settings, shapes)
    yield largest
    seen = _num_pixels(largest)
    for smaller in sized:
        if _num_pixels(smaller) < seen:
            seen = _num_pixels(smaller)
            yield smaller


def _num_pixels(settings: FitSettings) -> int:
    height, width = settings.input.network_shape
    return height * width * settings.input.tiling.count
