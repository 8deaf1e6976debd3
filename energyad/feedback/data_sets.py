"""Labels in the data sets of Datumaro (its own format) and FiftyOne (`FiftyOneDataset`), as both libraries export them.

Neither library is needed: what they export are JSON files beside the images.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import os.path
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Integer, Shaped

from energyad.errors import DataError
from energyad.extras import require
from energyad.feedback.imported import ImportedLabel, label_of
from energyad.feedback.label_tools import MAX_PIXELS
from energyad.feedback.marks import Polygon, box, polygons_of
from energyad.images.decoding import DEFAULT_MAX_PIXELS, read_raw
from energyad.images.reading import as_rgb

ELLIPSE_CORNERS: Final = 32
GROUND_TRUTH: Final = "ground_truth"
"""What FiftyOne's importers call labels by people, or how they begin their names."""
SUBSET_TAGS: Final = ("train", "test", "validation", "val")
"""Tags by which FiftyOne's data sets say what a sample is for."""
_LISTS: Final = {
    "Classifications": "classifications",
    "Detections": "detections",
    "Polylines": "polylines",
    "Keypoints": "keypoints",
}
"""FiftyOne's labels that hold several, and the key of these."""

Shape: TypeAlias = tuple[str, Sequence[Polygon]]
"""A name and where it is said: nowhere of a whole image."""


def read_datumaro(path: Path, content: Mapping[str, Any]) -> Iterator[ImportedLabel]:
    """Yield the label of each image of a file of Datumaro: an image without annotations is a good part.

    Args:
        path: `annotations/SUBSET.json`. Images are in `images/SUBSET/` beside the folder.
        content: Its content.

    Raises:
        DataError: An image lies elsewhere.
    """
    subset, images = path.stem, path.parent.parent / "images"
    labels = content["categories"].get("label", {"labels": ()})["labels"]
    names = [str(label["name"]) for label in labels]
    passed_over = _PassedOver(path)
    for item in content["items"]:
        if item.get("image") is None:
            passed_over.kinds["item without an image"] += 1
            continue
        file = item["image"].get("path") or f"{item['id']}.jpg"
        old, new = _inside(images, file), _inside(images / subset, file)
        image = new if new.is_file() or not old.is_file() else old
        shapes = []
        for annotation in item["annotations"]:
            polygons = _datumaro_polygons(annotation)
            if polygons is None:
                passed_over.kinds[str(annotation["type"])] += 1
            else:
                number = annotation.get("label_id")
                shapes.append(("defect" if number is None else names[number], polygons))
        if shapes or not item["annotations"]:
            yield replace(label_of(image, shapes), subset=subset)
        else:
            passed_over.images += 1
    passed_over.warn()


def _datumaro_polygons(annotation: Mapping[str, Any]) -> Sequence[Polygon] | None:
    """The polygons of an annotation; none of a label of the whole image, None of what marks no area."""
    form = annotation["type"]
    if form == "label":
        return []
    if form == "bbox":
        return [box(*annotation["bbox"])]
    if form in ("polygon", "polyline", "points"):
        return [_rounded(np.array(annotation["points"], dtype=float).reshape(-1, 2))]
    if form == "ellipse":
        left, top, right, bottom = (float(value) for value in annotation["points"])
        angles = np.linspace(0, 2 * np.pi, ELLIPSE_CORNERS, endpoint=False)
        x = (left + right - 1) / 2 + (right - left - 1) / 2 * np.cos(angles)
        y = (top + bottom - 1) / 2 + (bottom - top - 1) / 2 * np.sin(angles)
        return [_rounded(np.stack([x, y], axis=1))]
    if form == "mask":
        require("supervision", "masks of Datumaro")
        import supervision

        height, width = (int(value) for value in annotation["rle"]["size"])
        if height * width > MAX_PIXELS:
            raise ValueError("a mask of another size")
        return polygons_of(supervision.rle_to_mask(annotation["rle"]["counts"], (width, height)))
    return None


def read_fiftyone(
    path: Path, content: Mapping[str, Any], fields: Sequence[str] = ()
) -> Iterator[ImportedLabel]:
    """Yield the label of each image of a `FiftyOneDataset`; a sample without any label has none.

    Args:
        path: `samples.json`. Images are below its folder.
        content: Its content.
        fields: Those that hold what people say; None for those whose names begin with `ground_truth`, or for the only
            one that there is.

    Raises:
        DataError: A file lies elsewhere, or it is not clear which fields count.
    """
    samples, folder = content["samples"], path.parent
    chosen = _fields_of(path, samples, fields)
    targets, passed_over = _Targets.read(folder / "metadata.json"), _PassedOver(path)
    for sample in samples:
        if sample.get("_media_type", "image") != "image":
            passed_over.kinds[str(sample["_media_type"])] += 1
            continue
        image = _inside(folder, sample["filepath"])
        size = _ImageSize(image, sample.get("metadata"))
        shapes: list[Shape] = []
        is_labelled = False
        for field in chosen:
            for label in _singles(sample.get(field)):
                several = _fiftyone_shapes(label, folder, size, targets.of(field))
                if several is None:
                    passed_over.kinds[str(label["_cls"])] += 1
                else:
                    is_labelled, shapes = True, shapes + several
            is_labelled = is_labelled or _is_empty(sample.get(field))
        if is_labelled:
            subset = next((tag for tag in sample.get("tags", ()) if tag in SUBSET_TAGS), None)
            yield replace(label_of(image, shapes), subset=subset)
        else:
            passed_over.images += 1
    passed_over.warn()


@dataclass
class _PassedOver:
    """What of a data set is not read."""

    path: Path
    images: int = 0

    def __post_init__(self) -> None:
        self.kinds: Counter[str] = Counter()

    def warn(self) -> None:
        """Say it in one line; nothing where all was read."""
        counts = [f"{count} of {kind}" for kind, count in sorted(self.kinds.items())]
        counts += [f"{self.images} images without a label that is read"] * (self.images > 0)
        if counts:
            warnings.warn(f"{self.path}: passed over {', '.join(counts)}", stacklevel=2)


class _ImageSize:
    """Height and width of an image: those of its metadata, else those of the file."""

    def __init__(self, image: Path, metadata: Mapping[str, Any] | None) -> None:
        self._image, self._metadata = image, metadata or {}

    def read(self) -> tuple[int, int]:
        height, width = self._metadata.get("height"), self._metadata.get("width")
        if height and width:
            return int(height), int(width)
        rows, columns = as_rgb(self._image).shape[:2]
        return rows, columns


@dataclass(frozen=True)
class _Targets:
    """Names of the values in masks, by field."""

    by_field: Mapping[str, Mapping[str, Any]]
    default: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> _Targets:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            values = {}
        return cls(values.get("mask_targets") or {}, values.get("default_mask_targets") or {})

    def of(self, field: str) -> Mapping[str, Any]:
        return self.by_field.get(field) or self.default


def _fields_of(path: Path, samples: Sequence[Mapping[str, Any]], fields: Sequence[str]) -> list[str]:
    """The fields that count, in their order."""
    present = {
        name: None
        for sample in samples
        for name, value in sample.items()
        if name != "metadata" and isinstance(value, dict) and "_cls" in value
    }
    names = ", ".join(present) or "none"
    missing = [field for field in fields if field not in present]
    if missing:
        raise DataError(f"{path}: no label field {missing[0]}; there are {names}")
    by_people = [name for name in present if name.startswith(GROUND_TRUTH)]
    if not fields and not by_people and len(present) != 1:
        raise DataError(f"{path}: label fields are {names}; name those that people filled with --field")
    return list(fields) or by_people or list(present)


def _singles(label: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    if label is None:
        return ()
    key = _LISTS.get(label["_cls"])
    return (label,) if key is None else label[key]


def _is_empty(label: Mapping[str, Any] | None) -> bool:
    """Whether somebody said that there is nothing: a list without entries."""
    return label is not None and label["_cls"] in _LISTS and not label[_LISTS[label["_cls"]]]


def _fiftyone_shapes(
    label: Mapping[str, Any], folder: Path, size: _ImageSize, targets: Mapping[str, Any]
) -> list[Shape] | None:
    """The shapes of one label; None of what says nothing of a part or an area."""
    form, name = label["_cls"], str(label.get("label") or "defect")
    if form == "Classification":
        return [] if label.get("label") is None else [(name, [])]
    if form == "Detection":
        return [(name, _of_detection(label, folder, size.read()))]
    if form == "Polyline":
        height, width = size.read()
        rings = [np.array(ring, dtype=float).reshape(-1, 2) for ring in label["points"]]
        return [(name, [_rounded(ring * [width, height]) for ring in rings])]
    if form == "Segmentation":
        return _of_segmentation(label, folder, size.read(), targets)
    return None


def _of_detection(label: Mapping[str, Any], folder: Path, shape: tuple[int, int]) -> Sequence[Polygon]:
    """A box, or the mask inside it. Coordinates are shares of the image."""
    height, width = shape
    x, y, w, h = (float(value) for value in label["bounding_box"])
    if not (min(x, y, w, h) > -1 and max(x, y, w, h) < 2):
        raise ValueError("a box outside of its image")
    if label.get("mask") is None and label.get("mask_path") is None:
        return [box(x * width, y * height, w * width, h * height)]
    mask = (_levels(label, folder) > 0).astype(np.uint8)
    inside = cv2.resize(
        mask, (max(1, round(w * width)), max(1, round(h * height))), interpolation=cv2.INTER_NEAREST
    )
    left, top = round(x * width), round(y * height)
    return [tuple((a + left, b + top) for a, b in polygon) for polygon in polygons_of(inside > 0)]


def _of_segmentation(
    label: Mapping[str, Any], folder: Path, shape: tuple[int, int], targets: Mapping[str, Any]
) -> list[Shape]:
    """A shape for each value of a mask but 0, which is the background."""
    levels = _levels(label, folder)
    shapes: list[Shape] = []
    for value in np.unique(levels[levels > 0]).tolist():
        marked: Bool[np.ndarray, "h w"] = levels == value
        if marked.shape != shape:
            resized = cv2.resize(marked.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST)
            marked = resized > 0
        shapes.append((str(targets.get(str(value), "defect")), polygons_of(marked)))
    return shapes


def _levels(label: Mapping[str, Any], folder: Path) -> Integer[np.ndarray, "h w"]:
    """The values of a mask, from its file or from the label itself."""
    if label.get("mask") is None:
        pixels = read_raw(_inside(folder, label["mask_path"]), max_pixels=DEFAULT_MAX_PIXELS).pixels
        return pixels.max(axis=2)
    array = _unpacked(label["mask"]["$binary"]["base64"])
    if array.ndim == 3:
        array = array.max(axis=2)
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise ValueError("a mask of another form")
    return array.astype(np.int64)


def _unpacked(text: str) -> Shaped[np.ndarray, "..."]:
    """An array as FiftyOne packs it: NumPy's file format, compressed by zlib. Its size is checked before it is made."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), MAX_PIXELS)
    except (binascii.Error, zlib.error) as error:
        raise ValueError("a mask that cannot be unpacked") from error
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("a mask of another format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError("a mask of another size")
    stream.seek(0)
    return np.asarray(np.load(stream, allow_pickle=False))


def _rounded(points: Shaped[np.ndarray, "n 2"]) -> Polygon:
    return tuple((round(x), round(y)) for x, y in points.tolist())


def _inside(folder: Path, name: str) -> Path:
    """A path that a file names, below a folder.

    Raises:
        DataError: It leads out of it.
    """
    root = os.path.normpath(folder)
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(root):
        raise DataError(f"{name}: lies outside of {root}; export the data set with its images")
    return path
