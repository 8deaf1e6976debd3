"""Fields: one part, enlarged, somewhere in a large image; in a defective one the part has a real defect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from energyad.data.datasets import Category, TestItem
from energyad.images.masks import read_mask
from energyad.images.reading import read_image

RING = 8  # pixels of a part's image border that show its background
FEATHER = 64  # pixels over which a part's image goes over into the field


@dataclass(frozen=True)
class Field:
    """A field's image file, and where its part's defect is (None: there is none)."""

    image: Path
    defect_type: str | None
    mask: Bool[np.ndarray, "h w"] | None


@dataclass(frozen=True)
class Size:
    """Pixels a side of a field and of the enlarged part in it."""

    field: int
    part: int


def good_fields(
    parts: Sequence[Path], folder: Path, *, count: int, size: Size, rng: np.random.Generator
) -> list[Field]:
    """Fields of `count` of these good parts."""
    chosen = [parts[place] for place in rng.permutation(len(parts))[:count].tolist()]
    return [_field(part, None, folder / f"good-{part.stem}.jpg", size, rng) for part in chosen]


def defective_fields(
    category: Category, folder: Path, *, each: int, size: Size, rng: np.random.Generator
) -> list[Field]:
    """For each type of defect `each` fields of parts that have it."""
    fields = []
    for defect_type in category.defect_types:
        items = [item for item in category.test if item.defect_type == defect_type]
        for place in rng.permutation(len(items))[:each].tolist():
            item = items[place]
            name = folder / f"{defect_type}-{item.path.stem}.jpg"
            fields.append(_field(item.path, item, name, size, rng))
    return fields


def _field(part: Path, item: TestItem | None, place: Path, size: Size, rng: np.random.Generator) -> Field:
    top, left = (int(rng.integers(size.field - size.part + 1)) for _ in range(2))
    window = (slice(top, top + size.part), slice(left, left + size.part))
    pixels = lay(read_image(part), window, size, rng)
    place.parent.mkdir(parents=True, exist_ok=True)  # JPEG of this quality: a PNG of this size takes seconds
    encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
    place.write_bytes(encoded.tobytes())
    if item is None or item.mask is None:
        return Field(place, None, None)
    mask = np.zeros((size.field, size.field), bool)
    enlarged = cv2.resize(
        read_mask(item.mask).astype(np.uint8), (size.part, size.part), interpolation=cv2.INTER_NEAREST
    )
    mask[window] = enlarged.astype(bool)
    return Field(place, item.defect_type, mask)


def lay(
    part: UInt8[np.ndarray, "h w 3"], window: tuple[slice, slice], size: Size, rng: np.random.Generator
) -> UInt8[np.ndarray, "field field 3"]:
    """The part, enlarged, on its own background's colour and grain, its border softened."""
    ring = np.ones(part.shape[:2], bool)
    ring[RING:-RING, RING:-RING] = False
    grain = float((part.astype(np.float32) - cv2.medianBlur(part, 5))[ring].std())
    own = round(size.field * part.shape[0] / size.part)  # the field at the part's own resolution
    small = rng.normal(0, grain, (own, own)).astype(np.float32)
    noise = cv2.resize(small, (size.field, size.field), interpolation=cv2.INTER_CUBIC)[:, :, None]
    field = np.median(part[ring], axis=0).astype(np.float32) + noise
    enlarged = cv2.resize(part, (size.part, size.part), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    edge = np.minimum(np.arange(size.part) + 1, size.part - np.arange(size.part)) / FEATHER
    cover = np.minimum(1, np.minimum(edge[:, None], edge))[:, :, None].astype(np.float32)
    field[window] = cover * enlarged + (1 - cover) * field[window]
    return np.clip(np.rint(field), 0, 255).astype(np.uint8)
