"""Laws of data sets that Datumaro and FiftyOne exported: tests/feedback/exports/write.py wrote those that are read."""

from __future__ import annotations

import base64
import io
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from energyad.errors import DataError
from energyad.feedback.imported import ImportedLabel
from energyad.feedback.importing import read_labels
from energyad.feedback.labelled_parts import category_of_labels, good_parts
from energyad.feedback.marks import mask_of

EXPORTS = Path(__file__).parent / "exports"
SHAPE = (20, 30)
EXPECTED = np.zeros(SHAPE, bool)
EXPECTED[3:5, 6:9] = True
MARKED = {
    "datumaro": ("box", "polygon", "mask", "ellipse", "odd"),
    "fiftyone": ("box", "polygon", "mask", "segmentation", "stored"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:energyad")
@pytest.mark.parametrize("tool", MARKED)
def test_an_export_says_what_is_good_and_where_defects_are(tool: str) -> None:
    labels = {label.image.stem: label for label in read_labels(EXPORTS / tool)}
    assert labels.keys() == {*MARKED[tool], "good", "empty"}
    for name in ("good", "empty"):
        assert (labels[name].value, labels[name].marks, labels[name].subset) == ("fine", (), "train")
    for name in MARKED[tool]:
        assert (labels[name].value, labels[name].kind, labels[name].subset) == ("defect", "dent", "test")
        assert labels[name].image.is_file()
        assert np.array_equal(mask_of(labels[name].marks, SHAPE), EXPECTED), name


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ("datumaro", "passed over 1 of caption, 1 of cuboid_2d"),
        ("fiftyone", "passed over 1 of Keypoint, 2 images without a label that is read"),
    ],
)
def test_what_says_nothing_of_a_part_is_counted(tool: str, text: str) -> None:
    with pytest.warns(UserWarning, match=text):
        read_labels(EXPORTS / tool)


def fiftyone(folder: Path, **label: Any) -> Path:
    """A data set of one sample with this label."""
    (folder / "data").mkdir(parents=True)
    shutil.copyfile(EXPORTS / "fiftyone/data/box.png", folder / "data/box.png")
    sample = {"filepath": "data/box.png", "tags": [], "ground_truth": label}
    (folder / "samples.json").write_text(json.dumps({"samples": [sample]}))
    return folder


def packed(array: np.ndarray) -> dict[str, Any]:
    stream = io.BytesIO()
    np.save(stream, array)
    return {
        "$binary": {"base64": base64.b64encode(zlib.compress(stream.getvalue())).decode(), "subType": "00"}
    }


def test_fields_of_predictions_count_only_where_they_are_named() -> None:
    (label,) = [
        label
        for label in read_labels(EXPORTS / "fiftyone", fields=["predictions"])
        if label.image.stem == "box"
    ]
    assert label.value == "fine"
    with pytest.raises(DataError, match="no label field other; there are ground_truth_detections"):
        read_labels(EXPORTS / "fiftyone", fields=["other"])
    with pytest.raises(DataError, match="--field is for data sets of FiftyOne"):
        read_labels(EXPORTS / "datumaro", fields=["predictions"])


def test_fields_must_be_named_where_it_is_not_clear_which_count(tmp_path: Path) -> None:
    place = fiftyone(tmp_path / "set", _cls="Classification", label="good")
    content = json.loads((place / "samples.json").read_text())
    sample = content["samples"][0]
    sample["category"], sample["defect"] = (
        {"_cls": "Classification", "label": "bottle"},
        sample.pop("ground_truth"),
    )
    (place / "samples.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"label fields are category, defect; name those .* with --field"):
        read_labels(place)
    (label,) = read_labels(place, fields=["defect"])
    assert label.value == "fine"


@pytest.mark.parametrize("size", [(20, 30), (40, 60), (10, 15)])
def test_a_mask_is_brought_to_the_size_of_its_image(tmp_path: Path, size: tuple[int, int]) -> None:
    mask = np.zeros(size, np.uint8)
    mask[: size[0] // 2] = 3
    place = fiftyone(tmp_path / "set", _cls="Segmentation", mask=packed(mask))
    (label,) = read_labels(place)
    found = mask_of(label.marks, SHAPE)
    assert label.value == "defect" and found[:10].all() and not found[10:].any()


@pytest.mark.parametrize(
    "values",
    [
        {"_cls": "Segmentation", "mask": {"$binary": {"base64": "AAAA"}}},
        {"_cls": "Segmentation", "mask": packed(np.zeros((2, 3), np.float32))},
        {"_cls": "Segmentation", "mask": packed(np.array([[{}]], dtype=object))},
        {
            "_cls": "Detection",
            "label": "dent",
            "bounding_box": [0, 0, 1e9, 1e9],
            "mask": packed(np.ones((2, 2), bool)),
        },
        {"_cls": "Detection", "label": "dent", "bounding_box": [0, 0, float("nan"), 1]},
        {"_cls": "Detection", "label": "dent"},
        {"label": "dent", "_cls": "Polyline", "points": [[[0.5]]]},
    ],
)
def test_a_label_of_another_form_is_an_error_of_one_line(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="not as labelling tools write it"):
        read_labels(fiftyone(tmp_path / "set", **values))


def test_an_array_that_claims_to_be_larger_than_it_is_is_refused_before_it_is_made(tmp_path: Path) -> None:
    mask = packed(np.ones((2, 2), np.uint8))
    data = zlib.decompress(base64.b64decode(mask["$binary"]["base64"])).replace(
        b"(2, 2), ", b"(9999999, 99999), "
    )
    mask["$binary"]["base64"] = base64.b64encode(zlib.compress(data)).decode()
    with pytest.raises(DataError, match="not as labelling tools write it"):
        read_labels(fiftyone(tmp_path / "set", _cls="Segmentation", mask=mask))


@pytest.mark.filterwarnings("ignore::UserWarning:energyad")
@pytest.mark.parametrize("path", ["../outside.png", "/etc/outside.png", "data/../../outside.png"])
@pytest.mark.parametrize("tool", MARKED)
def test_a_path_that_leads_out_of_the_data_set_is_refused(tmp_path: Path, tool: str, path: str) -> None:
    shutil.copytree(EXPORTS / tool, tmp_path / "set")
    place = tmp_path / "set" / {"datumaro": "annotations/train.json", "fiftyone": "samples.json"}[tool]
    content = json.loads(place.read_text())
    if tool == "datumaro":
        content["items"][0]["image"]["path"] = path if path.startswith("/") else f"../{path}"
    else:
        content["samples"][0]["filepath"] = path
    place.write_text(json.dumps(content))
    with pytest.raises(DataError, match="lies outside of"):
        read_labels(tmp_path / "set")


@pytest.mark.filterwarnings("ignore::UserWarning:energyad")
@pytest.mark.parametrize("tool", MARKED)
def test_a_category_fits_on_good_parts_and_tests_on_the_other_images(tmp_path: Path, tool: str) -> None:
    labels = read_labels(EXPORTS / tool)
    category = category_of_labels(labels, name="parts", masks=tmp_path)
    assert [path.stem for path in category.train_good] == ["empty", "good"]
    assert {item.path.stem for item in category.test} == set(MARKED[tool]) and category.has_masks
    for item in category.test:
        assert item.defect_type == "dent" and np.array_equal(item.read_mask(SHAPE), EXPECTED)


@pytest.mark.filterwarnings("ignore:.*nobody is sure:UserWarning")
def test_without_subsets_all_good_parts_are_to_fit_on_and_all_images_are_tested(tmp_path: Path) -> None:
    good = ImportedLabel(EXPORTS / "fiftyone/data/good.png", "fine")
    bad = ImportedLabel(EXPORTS / "fiftyone/data/box.png", "defect")
    unsure = ImportedLabel(EXPORTS / "fiftyone/data/odd.png", "unsure")
    assert good_parts([good, bad, unsure]) == (good.image,)
    with pytest.warns(UserWarning, match="1 defects are not marked"):
        category = category_of_labels([good, bad, unsure], name="parts", masks=tmp_path)
    assert [item.path for item in category.test] == [bad.image, good.image] and not category.has_masks
    with pytest.raises(DataError, match="nobody is sure"):
        category_of_labels([unsure], name="parts", masks=tmp_path)
