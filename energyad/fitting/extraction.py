"""Features of the images of good parts: each image goes through the frozen backbone once."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float16, Float32, UInt8

from energyad.errors import DataError
from energyad.fitting.context import FitContext
from energyad.fitting.feature_store import FeatureStore, MemoryFeatureStore, open_feature_store
from energyad.images import reading
from energyad.images.augmentation import photometric_jitter, random_rotation
from energyad.images.prefetch import batches, prefetch_map, readable
from energyad.images.reading import DEFAULT_MAX_PIXELS, ImageLike
from energyad.images.tiling import cut_pixels
from energyad.settings import FitSettings

EXTRACTION_BATCH_SIZE = 4
MAX_TRAINING_TILES = 800
"""Tiles of all images together that a fit sees, as many as an untiled fit of 800 images; at least one each."""

Augmentation: TypeAlias = Literal["jittered", "rotated"]
"""How a copy of an image differs from it: photometric jitter, or a random rotation."""

Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class GoodFeatures:
    """Features of the images that could be read. Those of many images lie on the disk and are memory-mapped.

    Attributes:
        features: Half precision, the channel last. An image that is not cut is one tile.
        indices: Where the images stand in the sequence that was given.
        store: Where the features lie.
    """

    features: Float16[np.ndarray, "n tiles g1 g2 c"]
    indices: tuple[int, ...]
    store: FeatureStore

    @classmethod
    def empty(cls) -> GoodFeatures:
        """Return the features of no image."""
        return cls(np.empty((0, 1, 1, 1, 1), np.float16), (), MemoryFeatureStore())

    def discard(self) -> None:
        """Free the disk. Until then an interrupted fit of the same images resumes with what was extracted."""
        self.store.discard()


def extract(
    good_images: Sequence[ImageLike], context: FitContext, *, augmentation: Augmentation | None = None
) -> GoodFeatures:
    """Run the frozen backbone over all good images, or over a randomly altered copy of each.

    Args:
        good_images: Images of good parts.
        context: Of the fit. `skip_bad` does not apply to copies, whose originals could be read.
        augmentation: How to alter each image, drawn from the settings' seed and its index; None for not at all.

    Returns:
        The features, in half precision, which halves their memory.

    Raises:
        DataError: If no image can be read.
        ImageError: For an image that cannot be read, unless it may be skipped.
    """
    settings, progress = context.settings, context.progress
    progress.stage(augmentation or "features", len(good_images))
    key: tuple[object, ...] = (context.session.fingerprint, settings.input.shape, settings.input.white_level)
    if augmentation is not None:
        key += (augmentation, settings.augmentation.photometric_jitter, settings.seed)
    store = open_feature_store(good_images, key=key)
    progress.advance(store.next_index)
    extracted = process_images(
        image_reader(good_images, settings, augmentation, max_pixels=context.max_pixels),
        _backbone_pass(context, max_tiles=max(1, MAX_TRAINING_TILES // max(1, len(good_images)))),
        range(store.next_index, len(good_images)),
        skip_bad=context.skip_bad and augmentation is None,
        workers=context.session.plan.workers,
    )
    for indices, features in extracted:
        store.append(indices, features)
        progress.advance(len(indices))
    stored, indices_read = store.finish()
    if not indices_read:
        raise DataError(f"none of the {len(good_images)} images can be read; see the warnings above")
    return GoodFeatures(stored, indices_read, store)


def image_reader(
    images: Sequence[ImageLike],
    settings: FitSettings,
    augmentation: Augmentation | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Callable[[int], UInt8[np.ndarray, "h w 3"]]:
    """Return a function that reads, alters and resizes the image of an index.

    Args:
        images: The images that indices are of.
        settings: The size to resize to, and the strength of photometric jitter.
        augmentation: How to alter each image, drawn from the settings' seed and its index; None for not at all.
        max_pixels: Files with more pixels are not decoded.
    """
    strength = settings.augmentation.photometric_jitter

    def read(index: int) -> UInt8[np.ndarray, "h w 3"]:
        pixels = reading.as_rgb(images[index], max_pixels=max_pixels, white_level=settings.input.white_level)
        rng = np.random.default_rng((settings.seed, index))
        if augmentation == "rotated":  # before resizing, at its own aspect
            pixels = random_rotation(pixels, rng=rng)
        resized = reading.resize(pixels, settings.input.shape)
        return (
            photometric_jitter(resized, strength=strength, rng=rng) if augmentation == "jittered" else resized
        )

    return read


def process_images(
    read: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    work: Callable[[Sequence[UInt8[np.ndarray, "h w 3"]]], Sequence[Result]],
    indices: Sequence[int],
    *,
    skip_bad: bool,
    workers: int,
) -> Iterator[tuple[list[int], list[Result]]]:
    """Read images ahead and work on them in batches, several at once.

    Args:
        read: Reads the image of an index.
        work: Returns one result for each image of a batch.
        indices: Images to read.
        skip_bad: Leave out images that cannot be read, with a warning.
        workers: Batches at once.

    Yields:
        Indices and results of each batch, in the order of the indices.

    Raises:
        ImageError: For an image that cannot be read, unless `skip_bad`.
    """
    done = prefetch_map(indices, read, work, batch_size=EXTRACTION_BATCH_SIZE, workers=workers)
    for batch in batches(readable(done, skip_bad=skip_bad), EXTRACTION_BATCH_SIZE):
        yield [outcome.item for outcome in batch], [outcome.require() for outcome in batch]


def sample_tiles(
    pixels: UInt8[np.ndarray, "h w 3"], *, settings: FitSettings, max_tiles: int
) -> UInt8[np.ndarray, "tiles th tw 3"]:
    """Return an image's tiles, or a random choice of them in their order.

    The choice depends on the settings' seed and the image's content alone: batches come in any order, so no generator
    is shared.
    """
    tiles = settings.input.tiling
    cut = cut_pixels(pixels, tiles, settings.input.network_shape)
    rng = np.random.default_rng([settings.seed, zlib.crc32(pixels.tobytes())])
    return cut[np.sort(rng.permutation(tiles.count)[:max_tiles])]


def _backbone_pass(
    context: FitContext, *, max_tiles: int
) -> Callable[[Sequence[UInt8[np.ndarray, "h w 3"]]], list[Float16[np.ndarray, "tiles g1 g2 c"]]]:
    """Return a function from a batch of images to their features. max_tiles: of each image."""
    session, settings = context.session, context.settings

    def untiled(batch: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Float16[np.ndarray, "1 g1 g2 c"]]:
        return list(_channel_last(session.run(np.stack(batch)))[:, None])

    def tiled(batch: Sequence[UInt8[np.ndarray, "h w 3"]]) -> list[Float16[np.ndarray, "tiles g1 g2 c"]]:
        tiles = (sample_tiles(image, settings=settings, max_tiles=max_tiles) for image in batch)
        return [_channel_last(session.run(each)) for each in tiles]

    return untiled if settings.input.tiling.count == 1 else tiled


def _channel_last(features: Float32[np.ndarray, "b c g1 g2"]) -> Float16[np.ndarray, "b g1 g2 c"]:
    return features.transpose(0, 2, 3, 1).astype(np.float16)
