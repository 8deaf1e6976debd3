"""Features of the images of good parts: each image goes through the frozen backbone once."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
import onnx
from jaxtyping import Float16, Float32, UInt8

from energyad.errors import DataError
from energyad.features.extractor import FeatureExtractor, load_extractor
from energyad.fitting.feature_store import FeatureStore, MemoryFeatureStore, open_feature_store
from energyad.graphs.cache import extractor_graph
from energyad.graphs.quantisation import quantise
from energyad.images import reading
from energyad.images.augmentation import photometric_jitter, turn
from energyad.images.prefetch import batches, prefetch_map, readable
from energyad.images.reading import ImageLike
from energyad.images.tiling import cut_pixels
from energyad.progress import Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.settings import FitSettings

BATCH_SIZE = 4
RANGED = 32
"""Images that set the ranges of quantised activations."""
MOST_TILES = 800
"""Tiles of all images together that a fit looks at, as many as an untiled fit of 800 images; at least one each."""

Change: TypeAlias = Literal["relit", "turned"]
Result = TypeVar("Result")


@dataclass(frozen=True)
class GoodFeatures:
    """Features of the images that could be read, channel last; `kept` are their places in the given sequence.

    Patches of an image's tiles lie below one another. Sets of many images lie on the disk and are memory-mapped.
    """

    features: Float16[np.ndarray, "n tiles*g g c"]
    kept: tuple[int, ...]
    rows: FeatureStore

    @classmethod
    def none(cls) -> GoodFeatures:
        """Of no image."""
        return cls(np.empty((0, 1, 1, 1), np.float16), (), MemoryFeatureStore())

    def discard(self) -> None:
        """Free the disk; until then an interrupted fit of the same images goes on with those not yet extracted."""
        self.rows.discard()


def extract(
    good_images: Sequence[ImageLike],
    session: OnnxFeatures,
    *,
    settings: FitSettings,
    skip_bad: bool,
    progress: Progress,
    change: Change | None = None,
) -> GoodFeatures:
    """Run the frozen backbone over all good images once; half precision halves the memory.

    change: of each image, drawn from the settings' seed and its place.
    """
    progress.stage(change or "features", len(good_images))
    most = max(1, MOST_TILES // max(1, len(good_images)))

    def work(batch: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Float16[np.ndarray, "tiles*g g c"]]:
        if settings.input.tiling.count == 1:
            return list(_half(session.run(np.stack(batch))))
        found = [_half(session.run(some_tiles(image, settings=settings, most=most))) for image in batch]
        return [np.concatenate(patches) for patches in found]

    key: tuple[object, ...] = (session.fingerprint, settings.input.shape, settings.input.white_level)
    if change is not None:
        key += (change, settings.augmentation.photometric_jitter, settings.seed)
    rows = open_feature_store(good_images, key=key)
    ahead = range(rows.next_place, len(good_images))
    progress.advance(rows.next_place)
    for places, found in work_on(
        good_images,
        work,
        settings=settings,
        skip_bad=skip_bad,
        workers=session.plan.workers,
        places=ahead,
        change=change,
    ):
        rows.append(places, found)
        progress.advance(len(places))
    features, kept = rows.finish()
    if not kept:
        raise DataError(f"none of the {len(good_images)} images can be read; see the warnings above")
    return GoodFeatures(features, kept, rows)


def some_pixels(
    good_images: Sequence[ImageLike], *, settings: FitSettings, skip_bad: bool
) -> list[UInt8[np.ndarray, "side side 3"]]:
    """What the backbone is shown of RANGED images, spread over the sequence: one tile of each. Raises ImageError."""
    step = max(1, len(good_images) // RANGED)
    places = range(0, len(good_images), step)[:RANGED]
    done = work_on(good_images, list, settings=settings, skip_bad=skip_bad, workers=1, places=places)
    return [
        tile for _, found in done for image in found for tile in some_tiles(image, settings=settings, most=1)
    ]


def some_tiles(
    pixels: UInt8[np.ndarray, "h w 3"], *, settings: FitSettings, most: int
) -> UInt8[np.ndarray, "tiles side side 3"]:
    """An image's tiles, `most` of them where it has more: other ones of other images, the same ones every time."""
    tiles = settings.input.tiling
    found = cut_pixels(pixels, tiles, settings.input.image_size)
    seed = [
        settings.seed,
        zlib.crc32(pixels.tobytes()),
    ]  # batches come in any order, so no generator is shared
    chosen = np.random.default_rng(seed).permutation(tiles.count)[:most]
    return found[np.sort(chosen)]


def _half(features: Float32[np.ndarray, "b c g g"]) -> Float16[np.ndarray, "b g g c"]:
    return features.transpose(0, 2, 3, 1).astype(np.float16)


def work_on(
    good_images: Sequence[ImageLike],
    work: Callable[[Sequence[UInt8[np.ndarray, "h w 3"]]], Sequence[Result]],
    *,
    settings: FitSettings,
    skip_bad: bool,
    workers: int,
    places: Sequence[int] | None = None,
    change: Change | None = None,
) -> Iterator[tuple[list[int], list[Result]]]:
    """Batches of places and what `work` makes of the resized images there; those that cannot be read are left out.

    places: of the images to work on, all by default. Raises ImageError at the first that cannot be read unless
    told to skip it.
    """

    def read(place: int) -> UInt8[np.ndarray, "h w 3"]:
        pixels = reading.as_rgb(good_images[place], white_level=settings.input.white_level)
        if change is None:
            return reading.resize(pixels, settings.input.shape)
        rng = np.random.default_rng((settings.seed, place))
        if change == "turned":  # at its own aspect
            pixels = turn(pixels, rng=rng)
        pixels = reading.resize(pixels, settings.input.shape)
        return (
            photometric_jitter(pixels, strength=settings.augmentation.photometric_jitter, rng=rng)
            if change == "relit"
            else pixels
        )

    wanted = range(len(good_images)) if places is None else places
    done = prefetch_map(wanted, read, work, batch_size=BATCH_SIZE, workers=workers)
    for batch in batches(readable(done, skip_bad=skip_bad), BATCH_SIZE):
        yield [each.item for each in batch], [each.require() for each in batch]


class Backbone(NamedTuple):
    """graph: of the extractor, in the precision of the settings; session: that runs it."""

    extractor: FeatureExtractor
    graph: onnx.ModelProto
    session: OnnxFeatures


def open_backbone(
    good_images: Sequence[ImageLike],
    settings: FitSettings,
    *,
    weights_file: Path | None,
    threads: int | None,
    skip_bad: bool,
) -> Backbone:
    """The backbone of these settings. good_images: some of which tell an integer one the range of its numbers."""
    extractor = load_extractor(
        settings.features.backbone,
        image_size=settings.input.image_size,
        strides=settings.features.strides,
        coarse_strides=settings.features.coarse_strides,
        border=settings.features.border_margin,
        weights_file=weights_file,
    )
    graph = extractor_graph(extractor)
    if settings.features.precision == "int8":
        pixels = some_pixels(good_images, settings=settings, skip_bad=skip_bad)
        graph = quantise(graph, pixels, name=settings.features.backbone)
    return Backbone(extractor, graph, OnnxFeatures(graph.SerializeToString(), threads=threads or 0))
