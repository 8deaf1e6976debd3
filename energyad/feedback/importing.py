"""Labels from files: folders by name, CSV, COCO, labelme, CVAT, Label Studio, Datumaro and FiftyOne."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from energyad.data.datasets import TestItem, labelled_items
from energyad.errors import DataError
from energyad.extras import require
from energyad.feedback.data_sets import read_datumaro, read_fiftyone
from energyad.feedback.imported import ImportedLabel, label_of, value_and_kind
from energyad.feedback.label_tools import read_cvat, read_label_studio
from energyad.feedback.labels import UNNAMED
from energyad.feedback.marks import Polygon, box, polygons_of
from energyad.images.masks import read_mask
from energyad.images.reading import as_rgb

CSV_COLUMNS: Final = ("image", "label", "kind", "mask")
CIRCLE_CORNERS: Final = 32
SAMPLES_FILE: Final = "samples.json"
"""Of FiftyOne's data sets."""


def read_labels(source: Path, *, fields: Sequence[str] = ()) -> list[ImportedLabel]:
    """Read the labels that a file or a folder holds.

    Args:
        source: A folder with `good/` and `defect/KIND/`, or in the layout of MVTec AD, in both cases with masks where
            there are any; a CSV file with the columns `image`, `label` and, optionally, `kind` and `mask`; a COCO
            file; a labelme file, or a folder of those; an XML file of CVAT; a JSON file of Label Studio; or a data
            set of Datumaro or FiftyOne, its folder or a JSON file in it. Paths in a file are below the file's folder.
        fields: Of FiftyOne's data sets, those that hold what people say, where that is not clear.

    Raises:
        DataError: It holds no labels, or one of them is wrong.
        ImageError: A mask cannot be read.
    """
    if fields and SAMPLES_FILE not in (source.name, *(path.name for path in source.glob(SAMPLES_FILE))):
        raise DataError(f"{source}: --field is for data sets of FiftyOne, which this is not")
    if source.is_dir():
        found = list(_of_folder(source, fields))
    elif source.suffix.lower() == ".csv":
        found = list(_of_csv(source))
    elif source.suffix.lower() == ".json":
        found = list(_of_json(source, fields))
    elif source.suffix.lower() == ".xml":
        found = list(read_cvat(source))
    else:
        raise DataError(f"{source}: no folder, .csv, .json or .xml of labels; see `energyad label --help`")
    if not found:
        raise DataError(f"{source}: holds no labels; see `energyad label --help` for what is read")
    return found


def _of_folder(folder: Path, fields: Sequence[str]) -> Iterator[ImportedLabel]:
    items = labelled_items(folder)
    for item in items:
        yield ImportedLabel(
            item.path,
            "defect" if item.is_defective else "fine",
            item.defect_type if item.is_defective and item.defect_type != UNNAMED else None,
            _marks_of_item(item),
        )
    if not items:
        samples, subsets = folder / SAMPLES_FILE, sorted(folder.glob("annotations/*.json"))
        for path in [samples] if samples.is_file() else subsets or sorted(folder.glob("*.json")):
            yield from _of_json(path, fields)


def _marks_of_item(item: TestItem) -> tuple[Polygon, ...]:
    if item.mask is None:
        return ()
    return polygons_of(item.read_mask(as_rgb(item.path).shape[:2]))


def _of_csv(path: Path) -> Iterator[ImportedLabel]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot be read ({type(error).__name__}); give a CSV file in UTF-8"
        ) from error
    reader = csv.DictReader(lines)
    missing = [name for name in CSV_COLUMNS[:2] if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(f"{path}: no column '{missing[0]}'; the columns are {', '.join(CSV_COLUMNS)}")
    for row in reader:
        text = (row["label"] or "").strip()
        if not text or not (row["image"] or "").strip():
            raise DataError(f"{path}, line {reader.line_num}: image or label is empty; fill it in")
        image, mask = path.parent / row["image"].strip(), (row.get("mask") or "").strip()
        value, kind = value_and_kind(text)
        marks = polygons_of(read_mask(path.parent / mask, shape=as_rgb(image).shape[:2])) if mask else ()
        yield ImportedLabel(image, value, (row.get("kind") or "").strip() or kind, marks)


def _of_json(path: Path, fields: Sequence[str]) -> Iterator[ImportedLabel]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: no JSON file ({type(error).__name__}); give COCO, labelme or Label Studio"
        ) from error
    try:
        if isinstance(content, dict) and "samples" in content:
            yield from read_fiftyone(path, content, fields)
        elif isinstance(content, dict) and {"items", "categories"} <= content.keys():
            yield from read_datumaro(path, content)
        elif isinstance(content, dict) and "shapes" in content:
            yield _of_labelme(path, content)
        elif isinstance(content, dict) and {"images", "annotations"} <= content.keys():
            yield from _of_coco(path, content)
        elif isinstance(content, list):
            yield from read_label_studio(path, content)
        else:
            raise DataError(
                f"{path}: neither COCO (images, annotations) nor labelme (shapes), Datumaro (items), FiftyOne "
                "(samples) or a list of Label Studio's tasks"
            )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path}: not as labelling tools write it ({type(error).__name__}: {error}); export it again"
        ) from error


def _of_labelme(path: Path, content: Mapping[str, Any]) -> ImportedLabel:
    """Return the label of a labelme file."""
    shapes = [(str(shape["label"]), _labelme_polygons(shape)) for shape in content["shapes"]]
    return label_of(path.parent / content["imagePath"], shapes)


def _labelme_polygons(shape: Mapping[str, Any]) -> Sequence[Polygon]:
    points = np.array(shape["points"], dtype=float).reshape(-1, 2)
    form = shape.get("shape_type", "polygon")
    if form == "mask":
        data = np.frombuffer(base64.b64decode(shape["mask"]), np.uint8)
        mask = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)) > 0
        (left, top), *_ = points.round().astype(int).tolist()
        return [tuple((x + left, y + top) for x, y in polygon) for polygon in polygons_of(mask)]
    if form == "circle":
        angles = np.linspace(0, 2 * np.pi, CIRCLE_CORNERS, endpoint=False)
        radius = np.linalg.norm(points[1] - points[0])
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    elif form == "rectangle":
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return [box(left, top, right - left, bottom - top)]
    return [tuple((round(x), round(y)) for x, y in points.tolist())]


def _of_coco(path: Path, content: Mapping[str, Any]) -> Iterator[ImportedLabel]:
    """Yield the label of each image of a COCO file."""
    folder = _coco_folder(path, [str(image["file_name"]) for image in content["images"]])
    names = {category["id"]: str(category["name"]) for category in content.get("categories", ())}
    by_image: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for image in content["images"]:
        shape = int(image["height"]), int(image["width"])
        shapes = [
            (names.get(annotation.get("category_id"), UNNAMED), _coco_polygons(annotation, shape))
            for annotation in by_image.get(image["id"], ())
        ]
        yield label_of(folder / image["file_name"], shapes)


def _coco_folder(path: Path, names: Sequence[str]) -> Path:
    """The folder that image names start from: the file's own, or where COCO, CVAT and FiftyOne put images beside it."""
    own, above = path.parent, path.parent.parent
    places = [own, own / "images", own / "data"]
    if own.name in ("annotations", "labels"):
        beside = sorted(place for place in above.iterdir() if place.is_dir() and place != own)
        places += [above, *beside, *sorted(above.glob("images/*/"))]
    holders = [place for place in places if names and (place / names[0]).is_file()]
    if not holders or own in holders:
        return own
    named = [place for place in holders if path.stem.endswith(place.name)] or holders
    if len(named) > 1:
        raise DataError(
            f"{path}: {names[0]} is in {named[0]} and in {named[1]}; put the file beside its images"
        )
    return named[0]


def _coco_polygons(annotation: Mapping[str, Any], shape: tuple[int, int]) -> Sequence[Polygon]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        require("supervision", "masks of COCO in run lengths")
        import supervision

        height, width = shape
        return polygons_of(supervision.rle_to_mask(segmentation["counts"], (width, height)))
    if segmentation:
        points = [np.array(ring, dtype=float).reshape(-1, 2) for ring in segmentation]
        return [tuple((round(x), round(y)) for x, y in ring.tolist()) for ring in points]
    return [box(*annotation["bbox"])] if annotation.get("bbox") else []
