"""Which part of the image is judged: a region of interest and what to ignore in it, as polygons or as a mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Float16
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from energyad.errors import DataError, SettingsError, first_validation_error, os_reason
from energyad.images.masks import read_mask
from energyad.model.manifest import RoiSpec

_FINER = 4  # polygons are drawn this many times finer than the mask, then averaged

Polygon: TypeAlias = tuple[tuple[float, float], ...]
RoiSource: TypeAlias = str | Path | np.ndarray


class RoiFile(BaseModel):
    """A JSON file of polygons: corners x, y from the upper left, relative (0 to 1) or in pixels of width × height."""

    model_config = ConfigDict(extra="forbid")

    units: Literal["relative", "pixels"]
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    polygons: list[list[tuple[float, float]]] = Field(min_length=1)

    @model_validator(mode="after")
    def _inside(self) -> RoiFile:
        if self.units == "pixels" and (self.width is None or self.height is None):
            raise ValueError("units 'pixels' need the image's width and height beside them")
        for polygon in self.relative():
            if len(polygon) < 3:
                raise ValueError("a polygon needs three corners or more")
            if not all(0 <= x <= 1 and 0 <= y <= 1 for x, y in polygon):  # NaN fails too
                raise ValueError("a corner lies outside the image")
        return self

    def relative(self) -> tuple[Polygon, ...]:
        """Corners as shares of width and height."""
        width, height = (self.width or 1, self.height or 1) if self.units == "pixels" else (1, 1)
        return tuple(tuple((x / width, y / height) for x, y in polygon) for polygon in self.polygons)


@dataclass(frozen=True)
class Area:
    """A part of the image: polygons in relative coordinates, or a mask. source, sha256: the file it was read from."""

    polygons: tuple[Polygon, ...]
    mask: Bool[np.ndarray, "h w"] | None
    source: str
    sha256: str

    def drawn(self, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """The area over the whole image squeezed to height × width: pixels of which half or more lie in it."""
        if self.mask is not None:
            share = cv2.resize(self.mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
            return share >= 0.5
        fine = np.zeros((_FINER * shape[0], _FINER * shape[1]), np.uint8)
        for polygon in self.polygons:
            corners = np.array(polygon) * fine.shape[::-1] - 0.5  # OpenCV's integers are pixel centres
            cv2.fillPoly(fine, [np.rint(corners * 256).astype(np.int32)], 1, shift=8)
        return cv2.resize(fine.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA) >= 0.5


def read_roi(source: RoiSource) -> Area:
    """An area from a JSON file of polygons (`RoiFile`), an image (what is not black is in it) or a boolean array.

    Raises DataError for a file that is neither.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or source.dtype != np.bool_:
            raise DataError(f"area: an array of {source.dtype} {source.shape}; give a boolean h x w")
        return Area((), source, "array", hashlib.sha256(np.packbits(source).tobytes()).hexdigest())
    path = Path(source)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = os_reason(error)
        raise DataError(
            f"{path}: cannot be read: {reason}; give polygons as JSON, or a mask image"
        ) from error
    digest = hashlib.sha256(data).hexdigest()
    if path.suffix.lower() != ".json":
        return Area((), read_mask(path), path.name, digest)
    try:
        return Area(RoiFile.model_validate_json(data).relative(), None, path.name, digest)
    except ValidationError as error:
        where, fault = first_validation_error(error)
        form = '{"units": "relative", "polygons": [[[0, 0], [1, 0], [0.5, 1]]]}'
        raise DataError(f"{path}: no polygons ({where}: {fault}); give {form}") from error


@dataclass(frozen=True)
class RoiMask:
    """What is judged of an image: the mask and what the model's manifest says of it; None for all of it."""

    mask: Bool[np.ndarray, "h w"] | None
    spec: RoiSpec | None


def judge(
    shape: tuple[int, int], *, roi: RoiSource | None = None, ignore: RoiSource | None = None
) -> RoiMask:
    """What is judged of an image squeezed to height × width: inside `roi`, not in `ignore`.

    Raises DataError for a file that cannot be used, SettingsError where nothing is left.
    """
    areas = [None if source is None else read_roi(source) for source in (roi, ignore)]
    if areas == [None, None]:
        return RoiMask(None, None)
    inside, outside = areas
    mask = np.ones(shape, bool) if inside is None else inside.drawn(shape)
    if outside is not None:
        mask &= ~outside.drawn(shape)
    if not mask.any():
        names = " and ".join(area.source for area in areas if area is not None)
        raise SettingsError(f"{names}: nothing of the image is left to judge; check the polygons")
    sources = [None if area is None else (area.source, area.sha256) for area in areas]
    return RoiMask(mask, RoiSpec(coverage=float(mask.mean()), inside=sources[0], ignored=sources[1]))


def patches_in_area(
    features: Float16[np.ndarray, "n rows g c"], area: Bool[Tensor, " p"] | None
) -> Bool[np.ndarray, " rows*g"]:
    """Which patches of an image count: all without an area, and all of tiles of which some were drawn.

    area: of the patches of a whole image. Where the drawn tiles lay is not known.
    """
    count = int(np.prod(features.shape[1:3]))
    return np.ones(count, dtype=bool) if area is None or len(area) != count else area.numpy()
