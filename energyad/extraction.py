"""Features of the images of good parts: each image goes through the frozen backbone once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float16, UInt8

from energyad import detector, images
from energyad.errors import DataError, ImageError
from energyad.progress import Progress
from energyad.runtimes.onnx import OnnxFeatures
from energyad.settings import FitSettings

FEWEST, FEW = 2, 8
BATCH_SIZE = 8


@dataclass(frozen=True)
class GoodFeatures:
    """Features of the images that could be read, channel last; `kept` are their places in the given sequence."""

    features: Float16[np.ndarray, "n g g c"]
    kept: tuple[int, ...]


def require_enough(count: int) -> None:
    """Refuse fewer good images than can be split into some to fit on and some to set the threshold."""
    if count < FEWEST:
        raise DataError(
            f"{count} usable good image(s): a fit needs at least {FEWEST}, and is trustworthy from {FEW} on"
        )


def read_batches(
    good_images: Sequence[detector.ImageLike], *, settings: FitSettings, skip_bad: bool
) -> Iterator[tuple[list[int], UInt8[np.ndarray, "b h w 3"]]]:
    """Places and resized pixels of the images that can be read, decoded one batch ahead."""

    def read(places: range) -> list[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        read_ones = []
        for place in places:
            try:
                pixels = images.as_rgb(good_images[place], white_level=settings.white_level)
            except ImageError as error:
                if not skip_bad:
                    raise ImageError(error.path, f"{error.reason}; remove it or give --skip-bad") from error
                warnings.warn(f"left out: {error}", stacklevel=2)
                continue
            read_ones.append((place, images.resize(pixels, settings.image_size)))
        return read_ones

    starts = range(0, len(good_images), BATCH_SIZE)
    parts = [range(start, min(start + BATCH_SIZE, len(good_images))) for start in starts]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="energyad-read") as pool:
        pending = pool.submit(read, parts[0])
        for following in [*parts[1:], range(0)]:
            batch, pending = pending.result(), pool.submit(read, following)
            if batch:
                yield [place for place, _ in batch], np.stack([pixels for _, pixels in batch])


def extract(
    good_images: Sequence[detector.ImageLike],
    session: OnnxFeatures,
    *,
    settings: FitSettings,
    skip_bad: bool,
    progress: Progress,
) -> GoodFeatures:
    """Run the frozen backbone over all good images once; half precision halves the memory."""
    progress.stage("features", len(good_images))
    kept: list[int] = []
    features = []
    for places, pixels in read_batches(good_images, settings=settings, skip_bad=skip_bad):
        features.append(session.run(pixels).transpose(0, 2, 3, 1).astype(np.float16))
        kept += places
        progress.advance(len(places))
    if not kept:
        raise DataError(f"none of the {len(good_images)} images can be read; see the warnings above")
    if len(kept) < FEW:
        message = (
            f"only {len(kept)} good images: energy and threshold rest on little; {FEW} or more are advised"
        )
        warnings.warn(message, stacklevel=2)
    return GoodFeatures(np.concatenate(features), tuple(kept))
