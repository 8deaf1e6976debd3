"""Write the data sets of this folder anew, with the libraries whose formats they are.

    python tests/feedback/exports/write.py datumaro     datumaro 1.13.12
    python tests/feedback/exports/write.py fiftyone     fiftyone 1.22.1, FIFTYONE_DATABASE_URI with MongoDB 6.0

Each library has many dependencies of its own, so that the tests read what it wrote rather than install it. Images are
30 pixels wide and 20 high; the defect of each form covers the pixels 6 to 8 from the left, 3 to 4 from the top.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SHAPE = (20, 30)
FORMS = ("box", "polygon", "mask")


def write_datumaro(folder: Path, images: Path) -> None:
    """A data set in Datumaro's own format, of two subsets."""
    import datumaro as dm
    from datumaro.components.annotation import Cuboid2D

    dent, good, tools = 0, 1, 2
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:5, 6:9] = 1
    shapes = {
        "box": dm.Bbox(6, 3, 3, 2, label=dent),
        "polygon": dm.Polygon([6, 3, 8, 3, 8, 4, 6, 4], label=dent),
        "mask": dm.Mask(mask, label=dent),
    }
    annotations: dict[str, list[Any]] = {form: [shapes[form]] for form in FORMS}
    annotations |= {
        "ellipse": [dm.Ellipse(6, 3, 9, 5, label=dent)],
        "good": [dm.Label(good)],
        "empty": [],
        "odd": [dm.Caption("a part"), shapes["box"], Cuboid2D([(i, i) for i in range(8)], label=tools)],
    }
    items = [
        dm.DatasetItem(
            id=name,
            subset="train" if name in ("good", "empty") else "test",
            media=dm.Image.from_file(path=str(_image(images, name, number))),
            annotations=annotations[name],
        )
        for number, name in enumerate(annotations)
    ]
    dataset = dm.Dataset.from_iterable(items, categories=["dent", "good", "tools"])
    dataset.export(str(folder), "datumaro", save_media=True, image_ext=".png")


def write_fiftyone(folder: Path, images: Path) -> None:
    """A data set as `FiftyOneDataset`: one field for each form, and one of a model's predictions."""
    import fiftyone as fo

    def box(**values: Any) -> fo.Detections:
        return fo.Detections(
            detections=[fo.Detection(label="dent", bounding_box=[0.2, 0.15, 0.1, 0.1], **values)]
        )

    mask = np.zeros(SHAPE, np.uint8)
    mask[3:5, 6:9] = 1
    place = images / "mask_of_stored.png"
    Image.fromarray(mask * 255).save(place)
    corners = [[(6 / 30, 3 / 20), (8 / 30, 3 / 20), (8 / 30, 4 / 20), (6 / 30, 4 / 20)]]
    polyline = fo.Polyline(label="dent", points=corners, closed=True, filled=True)
    labels: dict[str, Any] = {
        "box": box(),
        "polygon": fo.Polylines(polylines=[polyline]),
        "mask": box(mask=np.ones((2, 3), bool)),
        "segmentation": fo.Segmentation(mask=mask),
        "stored": fo.Segmentation(mask_path=str(place)),
        "good": fo.Classification(label="good"),
        "empty": fo.Detections(detections=[]),
        "unlabelled": None,
        "odd": fo.Keypoints(keypoints=[fo.Keypoint(label="dent", points=[(0.2, 0.2)])]),
    }
    dataset = fo.Dataset("energyad-exports")
    for number, (name, label) in enumerate(labels.items()):
        sample = fo.Sample(filepath=str(_image(images, name, number)))
        sample.tags = ["train" if name in ("good", "empty") else "test"]
        if label is not None:
            sample[f"ground_truth_{type(label).__name__.lower()}"] = label
        sample["predictions"] = fo.Classification(label="good", confidence=0.7)
        dataset.add_sample(sample)
    dataset.default_mask_targets = {1: "dent", 255: "dent"}
    dataset.compute_metadata()
    dataset.export(export_dir=str(folder), dataset_type=fo.types.FiftyOneDataset)
    dataset.delete()


def _image(folder: Path, name: str, number: int) -> Path:
    place = folder / f"{name}.png"
    Image.fromarray(np.full((*SHAPE, 3), 10 * number, np.uint8)).save(place)
    return place


if __name__ == "__main__":
    target = HERE / sys.argv[1]
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as name:
        {"datumaro": write_datumaro, "fiftyone": write_fiftyone}[sys.argv[1]](target, Path(name))
