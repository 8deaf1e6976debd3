"""What is wrong with the images of a fit: copies of one another, and images that show nothing."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from energyad.errors import ImageError
from energyad.images import reading
from energyad.images.identity import pixel_digest
from energyad.images.prefetch import ordered_map, skip_or_raise
from energyad.images.reading import DEFAULT_MAX_PIXELS, ImageLike

DARK, BRIGHT = 4, 251
"""Grey levels, of 255, up to which and from which a pixel is taken for black and for white."""

MAX_SATURATED = 0.5
"""Share of white pixels beyond which an image counts as overexposed. Bright backgrounds are common, so it is large."""

MAX_BLACK = 0.98
"""Share of black pixels beyond which an image counts as nearly empty."""


@dataclass(frozen=True)
class ImageFacts:
    """What is checked of an image before a fit.

    Attributes:
        digest: See `pixel_digest`.
        shape: Height and width in pixels.
        is_constant: Whether all pixels are alike.
        is_empty: Whether nearly all pixels are black.
        is_saturated: Whether most pixels are white.
    """

    digest: str
    shape: tuple[int, int]
    is_constant: bool
    is_empty: bool
    is_saturated: bool


@dataclass(frozen=True)
class DistinctImages:
    """Images without copies of one another.

    Attributes:
        images: The first of each.
        digests: Of their pixels.
        shapes: Their heights and widths.
    """

    images: list[ImageLike]
    digests: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]


def distinct_images(
    good_images: Sequence[ImageLike],
    *,
    of: str,
    white_level: int | None,
    workers: int,
    skip_bad: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> DistinctImages:
    """Leave out copies, and warn of copies and of images that show nothing.

    A copy that is fitted on while its original is held out makes the threshold too low, as if good parts never varied.

    Args:
        good_images: The images of a category.
        of: The category's name, for messages.
        white_level: Of 16-bit images; see `energyad.images.reading.read_image`.
        workers: Images that are read at once.
        skip_bad: Leave out images that cannot be read, with a warning.
        max_pixels: Files with more pixels are not decoded.

    Raises:
        ImageError: An image cannot be read, unless `skip_bad`.
    """
    check = functools.partial(check_image, white_level=white_level, max_pixels=max_pixels)
    with warnings.catch_warnings():  # said once, when features are extracted; threads share the filters
        warnings.simplefilter("ignore")
        checked = list(ordered_map(check, good_images, workers=workers))
    distinct: dict[str, tuple[ImageLike, ImageFacts]] = {}
    num_copies = 0
    for image, facts in zip(good_images, checked, strict=True):
        if isinstance(facts, ImageError):
            skip_or_raise(facts, skip_bad=skip_bad)
        elif distinct.setdefault(facts.digest, (image, facts))[1] is not facts:
            num_copies += 1
    if num_copies:
        warnings.warn(
            f"{num_copies} of {len(good_images)} good images of '{of}' are copies of others, pixel by pixel, and are "
            f"left out; {len(distinct)} remain",
            stacklevel=2,
        )
    _warn_of_suspicious([facts for _, facts in distinct.values()], of=of)
    return DistinctImages(
        [image for image, _ in distinct.values()],
        tuple(distinct),
        tuple(facts.shape for _, facts in distinct.values()),
    )


def check_image(
    image: ImageLike, *, white_level: int | None, max_pixels: int = DEFAULT_MAX_PIXELS
) -> ImageFacts | ImageError:
    """Read an image and check it; the error of one that cannot be read is returned."""
    try:
        pixels = reading.as_rgb(image, max_pixels=max_pixels, white_level=white_level)
    except ImageError as error:
        return error
    return facts_of(pixels)


def facts_of(pixels: UInt8[np.ndarray, "h w 3"]) -> ImageFacts:
    """Check an image's pixels."""
    darkest, brightest = pixels.min(axis=2), pixels.max(axis=2)
    return ImageFacts(
        pixel_digest(pixels),
        shape=(pixels.shape[0], pixels.shape[1]),
        is_constant=int(brightest.max()) == int(darkest.min()),
        is_empty=float((brightest <= DARK).mean()) > MAX_BLACK,
        is_saturated=float((darkest >= BRIGHT).mean()) > MAX_SATURATED,
    )


def _warn_of_suspicious(facts: Sequence[ImageFacts], *, of: str) -> None:
    counts = [
        (sum(fact.is_constant for fact in facts), "show one colour alone"),
        (sum(fact.is_empty and not fact.is_constant for fact in facts), "are nearly black"),
        (sum(fact.is_saturated and not fact.is_constant for fact in facts), "are white in most places"),
    ]
    for count, text in counts:
        if count:
            warnings.warn(
                f"{count} of {len(facts)} good images of '{of}' {text}; remove them, or check camera and lighting",
                stacklevel=3,
            )
