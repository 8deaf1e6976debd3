"""The region of interest of a fit: what counts of an image and what to ignore in it, as polygons or as a mask."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float16
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from energyad.errors import DataError, SettingsError, first_validation_error, os_reason
from energyad.files import open_regular
from energyad.images.masks import read_mask
from energyad.model.manifest import RoiSpec

OVERSAMPLING = 4
"""Polygons are drawn this many times finer than the mask, then averaged."""

Polygon: TypeAlias = tuple[tuple[float, float], ...]
RoiSource: TypeAlias = str | Path | np.ndarray
"""A JSON file of polygons, a mask image, or a boolean array."""


class PolygonFile(BaseModel):
    """A JSON file of polygons.

    Attributes:
        units: Of the corners: "relative" from 0 to 1, or "pixels".
        width: Of the image that pixels are of.
        height: Likewise.
        polygons: Corners x, y from the upper left.
    """

    model_config = ConfigDict(extra="forbid")

    units: Literal["relative", "pixels"]
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    polygons: list[list[tuple[float, float]]] = Field(min_length=1)

    @model_validator(mode="after")
    def _inside(self) -> PolygonFile:
        if self.units == "pixels" and (self.width is None or self.height is None):
            raise ValueError("units 'pixels' need the image's width and height beside them")
        for polygon in self.relative():
            if len(polygon) < 3:
                raise ValueError("a polygon needs three corners or more")
            if not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in polygon):  # NaN fails too
                raise ValueError("a corner lies outside the image")
        return self

    def relative(self) -> tuple[Polygon, ...]:
        """Return the corners as fractions of width and height."""
        width, height = (self.width or 1, self.height or 1) if self.units == "pixels" else (1, 1)
        return tuple(tuple((x / width, y / height) for x, y in polygon) for polygon in self.polygons)


@dataclass(frozen=True)
class ImageRegion:
    """A part of the image: polygons or a mask.

    Attributes:
        polygons: In relative coordinates; none where there is a mask.
        mask: Of any size; None for polygons.
        source: Name of the file that it was read from.
        sha256: Of the file.
    """

    polygons: tuple[Polygon, ...]
    mask: Bool[np.ndarray, "h w"] | None
    source: str
    sha256: str

    def rasterise(self, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """Draw it over the whole image resized to `shape`, height and width: pixels of which half or more lie in it."""
        if self.mask is not None:
            coverage = cv2.resize(self.mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
            return coverage >= 0.5
        fine = np.zeros((OVERSAMPLING * shape[0], OVERSAMPLING * shape[1]), np.uint8)
        for polygon in self.polygons:
            corners = np.array(polygon) * fine.shape[::-1] - 0.5  # OpenCV's integers are pixel centres
            cv2.fillPoly(fine, [np.rint(corners * 256).astype(np.int32)], 1, shift=8)
        return cv2.resize(fine.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA) >= 0.5


def read_region(source: RoiSource) -> ImageRegion:
    """Read a part of the image.

    Args:
        source: A JSON file of polygons (`PolygonFile`), an image (what is not black is in it), or a boolean array.

    Raises:
        DataError: For a file that is neither polygons nor an image, and for another array.
        ImageError: For a mask that cannot be read.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or source.dtype != np.bool_:
            raise DataError(
                f"region of interest: an array of {source.dtype} {source.shape}; give a boolean h x w"
            )
        return ImageRegion((), source, "array", hashlib.sha256(np.packbits(source).tobytes()).hexdigest())
    path = Path(source)
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        reason = os_reason(error)
        raise DataError(
            f"{path}: cannot be read: {reason}; give polygons as JSON, or a mask image"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if path.suffix.lower() != ".json":
        return ImageRegion((), read_mask(path), path.name, digest)
    try:
        return ImageRegion(PolygonFile.model_validate_json(data).relative(), None, path.name, digest)
    except ValidationError as error:
        where, fault = first_validation_error(error)
        form = '{"units": "relative", "polygons": [[[0, 0], [1, 0], [0.5, 1]]]}'
        raise DataError(f"{path}: no polygons ({where}: {fault}); give {form}") from error


@dataclass(frozen=True)
class RegionOfInterest:
    """The region of interest of a fit; both None for the whole image.

    Attributes:
        mask: Pixels of the resized image.
        spec: What the model's manifest says of it.
    """

    mask: Bool[np.ndarray, "h w"] | None
    spec: RoiSpec | None


def load_roi(
    shape: tuple[int, int], *, roi: RoiSource | None = None, ignore: RoiSource | None = None
) -> RegionOfInterest:
    """Read the region of interest: inside `roi`, not in `ignore`.

    Args:
        shape: Height and width that images are resized to.
        roi: What counts; all where None.
        ignore: What does not count; nothing where None.

    Raises:
        DataError: For a file that cannot be used.
        ImageError: For a mask that cannot be read.
        SettingsError: Where nothing of the image is left.
    """
    if roi is None and ignore is None:
        return RegionOfInterest(None, None)
    inside, ignored = (None if source is None else read_region(source) for source in (roi, ignore))
    mask = np.ones(shape, bool) if inside is None else inside.rasterise(shape)
    if ignored is not None:
        mask &= ~ignored.rasterise(shape)
    if not mask.any():
        names = " and ".join(part.source for part in (inside, ignored) if part is not None)
        raise SettingsError(f"{names}: nothing of the image is left to score; check the polygons")
    if mask.all():
        names = " and ".join(part.source for part in (inside, ignored) if part is not None)
        warnings.warn(
            f"{names}: the region covers all of the image; in a mask, what does not count is black",
            stacklevel=2,
        )
    sources = [None if part is None else (part.source, part.sha256) for part in (inside, ignored)]
    return RegionOfInterest(mask, RoiSpec(coverage=float(mask.mean()), inside=sources[0], ignored=sources[1]))


def eligible_patches(
    features: Float16[np.ndarray, "n tiles g1 g2 c"], in_roi: Bool[Tensor, " p"] | None
) -> Bool[np.ndarray, "tiles g1 g2"]:
    """Return which patches of an image are learned from.

    Args:
        features: Of whole images, or of some of their tiles.
        in_roi: Patches of a whole image in the region of interest; all where None.

    Returns:
        The patches in the region of interest. All patches where only some tiles were chosen: where they lay is not
        known.
    """
    shape = features.shape[1:4]
    if in_roi is None or len(in_roi) != math.prod(shape):
        return np.ones(shape, dtype=bool)
    return in_roi.numpy().reshape(shape)
