"""Labels as a `Category`: good parts to fit on, and images with masks to evaluate on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from energyad.data.datasets import GOOD, Category, TestItem, check_category_name
from energyad.errors import DataError
from energyad.feedback.imported import ImportedLabel
from energyad.feedback.labels import UNNAMED
from energyad.feedback.marks import mask_of
from energyad.images.reading import as_rgb, write_png

TRAIN: Final = ("train", "training")
TEST: Final = ("test", "testing")
"""Names of subsets, in any case."""


def category_of_labels(labels: Sequence[ImportedLabel], *, name: str, masks: Path) -> Category:
    """Return labelled images as a category; the images stay where they are.

    Where some are of a subset `train`, its good parts are those to fit on, and the other images, or those of a subset
    `test`, are test images. Without such a subset, all good parts are to fit on and all images are test images.

    Args:
        labels: One for each image. Those that nobody is sure of are left out.
        name: Of the category.
        masks: A folder for the masks of defects that are marked.

    Raises:
        DataError: There is no image that somebody is sure of.
        ImageError: An image whose defects are marked cannot be read.
    """
    check_category_name(name)
    sure = [label for label in labels if label.value != "unsure"]
    if not sure:
        raise DataError(f"{name}: nobody is sure of any of its {len(labels)} images; label some")
    if len(sure) < len(labels):
        warnings.warn(f"{name}: {len(labels) - len(sure)} images of which nobody is sure", stacklevel=2)
    to_test = [label for label in sure if _is_of(label, TEST)]
    to_test = to_test or [label for label in sure if not _is_of(label, TRAIN)] or sure
    items = [_test_item(label, masks / f"{number:06}.png") for number, label in enumerate(to_test)]
    unmarked = sum(item.is_defective and item.mask is None for item in items)
    if unmarked:
        warnings.warn(
            f"{name}: {unmarked} defects are not marked, so there are no pixel figures", stacklevel=2
        )
    items.sort(key=lambda item: (item.defect_type, item.path))
    return Category(name, masks, good_parts(sure), tuple(items))


def good_parts(labels: Sequence[ImportedLabel]) -> tuple[Path, ...]:
    """Return the images of good parts to fit on: those of the subset `train`, or all where there is none.

    Args:
        labels: One for each image.
    """
    to_fit = [label for label in labels if _is_of(label, TRAIN)] or labels
    return tuple(sorted(label.image for label in to_fit if label.value == "fine"))


def _is_of(label: ImportedLabel, subsets: Sequence[str]) -> bool:
    return label.subset is not None and label.subset.lower() in subsets


def _test_item(label: ImportedLabel, mask_path: Path) -> TestItem:
    if label.value == "fine":
        return TestItem(label.image, GOOD, None)
    if not label.marks:
        return TestItem(label.image, label.kind or UNNAMED, None)
    height, width = as_rgb(label.image).shape[:2]
    mask = mask_of(label.marks, (height, width)).astype(np.uint8) * 255
    return TestItem(label.image, label.kind or UNNAMED, write_png(mask_path, mask))
