"""Labels as files that other tools read: COCO, labelme, and masks in the layout of MVTec AD."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from energyad.errors import DataError, ImageError, os_reason
from energyad.feedback.labels import UNNAMED, Label, is_unchanged
from energyad.feedback.marks import Polygon, mask_of
from energyad.files import atomic_write
from energyad.images.reading import as_rgb

ADVICE: Final = "put it back, or withdraw its label"


def write_coco(labels: Sequence[Label], path: Path) -> int:
    """Write one COCO file. Good parts are images without annotations; a defect without marks has its whole image.

    Args:
        labels: One for each image; those who are unsure are left out.
        path: The file.

    Returns:
        The number of images in it.

    Raises:
        DataError: The file cannot be written.
        ImageError: An image cannot be read, or is not what was labelled.
    """
    chosen = list(_sure(labels))
    kinds = sorted({label.kind or UNNAMED for label in chosen if label.value == "defect"})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, label in enumerate(chosen, start=1):
        height, width = _shape(label)
        images.append({"id": number, "file_name": str(label.image), "height": height, "width": width})
        if label.value == "defect":
            whole: Polygon = ((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1))
            for polygon in label.marks or (whole,):
                category = 1 + kinds.index(label.kind or UNNAMED)
                annotations.append(
                    _annotation(len(annotations) + 1, number, category, polygon, (height, width))
                )
    categories = [{"id": number, "name": kind} for number, kind in enumerate(kinds, start=1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    atomic_write(path, json.dumps(content, ensure_ascii=False) + "\n")
    return len(images)


def write_labelme(labels: Sequence[Label], folder: Path) -> int:
    """Write one labelme file for each image; those of good parts have no shapes.

    Args:
        labels: One for each image; those who are unsure are left out.
        folder: Of the files, which are named by the images' hashes.

    Returns:
        The number of files.

    Raises:
        DataError: A file cannot be written.
        ImageError: An image cannot be read, or is not what was labelled.
    """
    chosen = list(_sure(labels))
    for label in chosen:
        height, width = _shape(label)
        shapes = [
            {"label": label.kind or UNNAMED, "shape_type": "polygon", "points": polygon, "flags": {}}
            for polygon in label.marks
        ]
        content: dict[str, Any] = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": str(label.image),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        atomic_write(folder / f"{label.sha256[:16]}.json", json.dumps(content, ensure_ascii=False) + "\n")
    return len(chosen)


def write_mvtec(labels: Sequence[Label], folder: Path) -> int:
    """Copy images into `test/good` and `test/KIND`, with masks in `ground_truth/KIND`, as MVTec AD has them.

    Args:
        labels: One for each image; those who are unsure are left out.
        folder: Of the category.

    Returns:
        The number of images.

    Raises:
        DataError: A file cannot be read or written.
        ImageError: An image cannot be read, or is not what was labelled.
    """
    chosen = list(_sure(labels))
    for label in chosen:
        kind = _folder_name(label.kind or UNNAMED) if label.value == "defect" else "good"
        name = f"{label.image.stem}-{label.sha256[:8]}"
        target = folder / "test" / kind / f"{name}{label.image.suffix}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(label.image, target)
        except OSError as error:
            raise DataError(
                f"{target}: cannot be written ({os_reason(error)}); give another folder"
            ) from error
        if label.marks:
            mask = mask_of(label.marks, _shape(label)).astype(np.uint8) * 255
            png = cv2.imencode(".png", mask)[1].tobytes()
            atomic_write(folder / "ground_truth" / kind / f"{name}_mask.png", png)
    return len(chosen)


def _sure(labels: Sequence[Label]) -> Iterator[Label]:
    for label in labels:
        if label.value != "unsure":
            if label.image.exists() and not is_unchanged(label.image, label.sha256):
                raise ImageError(label.image, f"is not what was labelled; {ADVICE}")
            yield label


def _shape(label: Label) -> tuple[int, int]:
    try:
        height, width = as_rgb(label.image).shape[:2]
    except ImageError as error:
        raise ImageError(error.path, f"{error.reason}; {ADVICE}") from error
    return height, width


def _annotation(
    number: int, image: int, category: int, polygon: Polygon, shape: tuple[int, int]
) -> dict[str, Any]:
    (left, top), (right, bottom) = np.min(polygon, axis=0).tolist(), np.max(polygon, axis=0).tolist()
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [[value for corner in polygon for value in corner]],
        "bbox": [left, top, right - left + 1, bottom - top + 1],
        "area": int(mask_of([polygon], shape).sum()),
        "iscrowd": 0,
    }


def _folder_name(kind: str) -> str:
    """A kind as the name of one folder, whatever people called it."""
    plain = "".join(letter if letter.isalnum() or letter in " -_" else "_" for letter in kind).strip()
    return plain if plain and plain.lower() != "good" else f"{UNNAMED}_{plain}".rstrip("_")
