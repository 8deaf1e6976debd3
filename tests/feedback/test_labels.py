"""Laws of labels: stored once, replaced with their history, read from what labelling tools write."""

from __future__ import annotations

import base64
import csv
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from energyad.cli import app
from energyad.errors import DataError, ImageError
from energyad.feedback.exporting import write_coco, write_labelme, write_mvtec
from energyad.feedback.importing import read_labels
from energyad.feedback.labels import Added, Label, LabelStore, agreed
from energyad.feedback.marks import box, mask_of, polygons_of
from energyad.line.database import Database
from energyad.model.folder import file_hash


def image(path: Path, *, value: int = 0, shape: tuple[int, int] = (20, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(shape, value, np.uint8))
    return path


def label(name: str = "a", **values: object) -> Label:
    defaults = {"image": Path(name), "sha256": name, "value": "fine", "reviewer": "anna"}
    return Label(**{**defaults, **values})  # type: ignore[arg-type]


def labelled(path: Path, **values: object) -> Label:
    return label(image=path, sha256=file_hash(path), **values)


@pytest.mark.slow
def test_a_label_given_twice_is_stored_once_and_a_changed_one_keeps_its_history(place: str | Path) -> None:
    with Database(place) as database:
        store = LabelStore(database)
        assert store.add([label(), label()]) == Added(new=1, unchanged=1)
        changed = label(value="defect", kind="scratch", marks=(box(1, 2, 3, 4),))
        assert store.add([changed]) == Added(changed=1)
        assert store.add([changed]) == Added(unchanged=1)
        assert store.add([label(reviewer="bert")]) == Added(new=1)
        assert [(one.reviewer, one.value) for one in store.current()] == [
            ("anna", "defect"),
            ("bert", "fine"),
        ]
        assert store.current()[0] == changed
        assert store.withdraw("a", "anna") and not store.withdraw("a", "anna")
        assert [one.reviewer for one in store.current()] == ["bert"]
        said = [(who, None if what is None else what.value) for who, what in store.history("a")]
        assert said == [("anna", "fine"), ("anna", "defect"), ("bert", "fine"), ("anna", None)]
        assert store.add([changed]) == Added(changed=1)
        assert len(store.current()) == 2


def test_labels_are_stored_all_or_none(place: str | Path) -> None:
    with Database(place) as database:
        store = LabelStore(database)
        with pytest.raises(Exception, match="label_value"):
            store.add([label("a"), label("b", value="perhaps")])
        assert store.current() == []


def test_reviewers_at_once_lose_nothing_and_double_nothing(place: str | Path) -> None:
    names = [f"image{number}" for number in range(12)]

    def work(reviewer: str) -> None:
        with Database(place) as database:
            for name in names:
                LabelStore(database).add([label(name, reviewer=reviewer)])

    with Database(place) as database:
        threads = [threading.Thread(target=work, args=(who,)) for who in ("anna", "anna", "bert")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        current = LabelStore(database).current()
        with database.read() as session:
            rows = session.execute(text("SELECT count(*) FROM labels")).scalar()
    assert len(current) == rows == 2 * len(names)


def test_reviewers_who_differ_teach_nothing_of_that_image() -> None:
    marked = label("a", value="defect", reviewer="bert", marks=(box(0, 0, 2, 2),))
    labels = [marked, label("a", value="defect"), label("b"), label("b", value="defect", reviewer="bert")]
    chosen, differing = agreed([*labels, label("c", value="unsure"), label("d")])
    assert (chosen, differing) == ([marked, label("d", time=chosen[1].time)], 1)


@pytest.mark.parametrize("shape", [(20, 30), (7, 5), (64, 128)])
def test_polygons_give_a_mask_back(shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, bool)
    mask[2:5, 1:4] = mask[0, 0] = True
    mask[-2:, -1] = True
    assert np.array_equal(mask_of(polygons_of(mask), shape), mask)
    assert mask_of([box(1, 2, 3, 3)], shape).sum() == 9
    assert polygons_of(np.zeros(shape, bool)) == ()


def test_a_folder_says_what_is_good_which_kind_and_where(tmp_path: Path) -> None:
    image(tmp_path / "good/1.png")
    image(tmp_path / "defect/scratch/2.png", value=9)
    image(tmp_path / "defect/3.png", value=8)
    mask = np.zeros((20, 30), np.uint8)
    mask[3:5, 6:9] = 255
    (tmp_path / "ground_truth/scratch").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "ground_truth/scratch/2_mask.png"), mask)
    found = {one.image.name: one for one in read_labels(tmp_path)}
    assert (found["1.png"].value, found["1.png"].kind) == ("fine", None)
    assert (found["2.png"].value, found["2.png"].kind) == ("defect", "scratch")
    assert np.array_equal(mask_of(found["2.png"].marks, (20, 30)), mask > 0)
    assert (found["3.png"].value, found["3.png"].kind, found["3.png"].marks) == ("defect", None, ())


def test_csv_coco_and_labelme_say_the_same(tmp_path: Path) -> None:
    for name, value in (("good.png", 1), ("bad.png", 2)):
        image(tmp_path / name, value=value)
    mask = np.zeros((20, 30), np.uint8)
    mask[3:5, 6:9] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = [
            ("image", "label", "kind", "mask"),
            ("good.png", "OK", "", ""),
            ("bad.png", "ng", "dent", "mask.png"),
        ]
        csv.writer(file).writerows(rows)
    coco = {
        "images": [
            {"id": 1, "file_name": "good.png", "height": 20, "width": 30},
            {"id": 2, "file_name": "bad.png", "height": 20, "width": 30},
        ],
        "categories": [{"id": 5, "name": "dent"}],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 5, "bbox": [6, 3, 3, 2]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    lengths = {"size": [20, 30], "counts": [123, 2, 18, 2, 18, 2, 435]}
    coco["annotations"][0]["segmentation"] = lengths  # type: ignore[index]
    (tmp_path / "lengths.json").write_text(json.dumps(coco))
    coco["annotations"][0]["segmentation"] = [[6, 3, 8, 3, 8, 4, 6, 4]]  # type: ignore[index]
    (tmp_path / "polygons.json").write_text(json.dumps(coco))
    (tmp_path / "labelme").mkdir()
    drawn = {"label": "dent", "shape_type": "rectangle", "points": [[6, 3], [9, 5]]}
    for name, shapes in (("good", []), ("bad", [drawn])):
        content = {"imagePath": f"../{name}.png", "shapes": shapes}
        (tmp_path / "labelme" / f"{name}.json").write_text(json.dumps(content))
    for source in ("labels.csv", "coco.json", "polygons.json", "lengths.json", "labelme"):
        found = {one.image.stem: one for one in read_labels(tmp_path / source)}
        assert (found["good"].value, found["good"].marks) == ("fine", ()), source
        assert (found["bad"].value, found["bad"].kind) == ("defect", "dent"), source
        assert np.array_equal(mask_of(found["bad"].marks, (20, 30)), mask > 0), source


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        ("coco.json", "."),
        ("coco.json", "images"),
        ("labels.json", "data"),  # as FiftyOne writes it
        ("annotations/instances_val2017.json", "val2017"),  # as COCO itself
        ("annotations/instances_default.json", "images"),  # as CVAT
        ("annotations/instances_default.json", "images/default"),
        ("annotations/coco.json", "annotations"),
    ],
)
def test_images_of_a_coco_file_are_found_where_tools_put_them(
    labels: str, images: str, tmp_path: Path
) -> None:
    for folder in (images, "annotations", "other", "images"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    image(tmp_path / images / "a.png", value=1)
    coco = {"images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}], "annotations": []}
    (tmp_path / labels).write_text(json.dumps(coco))
    (found,) = read_labels(tmp_path / labels)
    assert found.image.samefile(tmp_path / images / "a.png") and found.value == "fine"


def test_images_of_one_name_in_several_splits_are_told_apart_by_the_file_s_name_or_refused(
    tmp_path: Path,
) -> None:
    coco = {"images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}], "annotations": []}
    (tmp_path / "annotations").mkdir()
    for value, split in enumerate(("train", "val")):
        (tmp_path / "images" / split).mkdir(parents=True)
        image(tmp_path / "images" / split / "a.png", value=value)
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))
    for split in ("train", "val"):
        (found,) = read_labels(tmp_path / "annotations" / f"instances_{split}.json")
        assert found.image.samefile(tmp_path / "images" / split / "a.png")
    (tmp_path / "annotations" / "all.json").write_text(json.dumps(coco))
    with pytest.raises(DataError, match=r"all\.json: a\.png is in .*train and in .*val"):
        read_labels(tmp_path / "annotations" / "all.json")


@pytest.mark.parametrize("form", ["coco", "labelme"])
@pytest.mark.parametrize(
    ("names", "value", "kind", "num_marks"),
    [
        (("good", "dent"), "defect", "dent", 1),
        (("dent", "scratch"), "defect", None, 2),
        (("good", "unsure"), "unsure", None, 0),
        (("ok",), "fine", None, 0),
    ],
)
def test_shapes_decide_a_label_alike_in_all_formats(
    tmp_path: Path, form: str, names: tuple[str, ...], value: str, kind: str | None, num_marks: int
) -> None:
    image(tmp_path / "a.png")
    corners = [[2, 2], [8, 2], [8, 8]]
    if form == "labelme":
        shapes = [{"label": name, "shape_type": "polygon", "points": corners} for name in names]
        content: dict[str, object] = {"imagePath": "a.png", "shapes": shapes}
    else:
        polygon = [number for corner in corners for number in corner]
        content = {
            "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
            "annotations": [
                {"image_id": 1, "category_id": number, "segmentation": [polygon]}
                for number in range(len(names))
            ],
        }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    (label,) = read_labels(tmp_path / "labels.json")
    assert (label.value, label.kind, len(label.marks)) == (value, kind, num_marks)


def label_studio_brush(mask: np.ndarray) -> list[int]:
    """As Label Studio packs a brush, without runs: words of eight bits, sixteen at a time."""
    values = np.repeat(255 * mask.astype(int).ravel(), 4)
    bits = f"{len(values):032b}{7:05b}{3:04b}" + 3 * f"{3:04b}"
    for start in range(0, len(values), 16):
        words = values[start : start + 16]
        bits += f"000{len(words) - 1:04b}" + "".join(f"{word:08b}" for word in words)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task/></meta>
<image id="0" name="good.png" width="30" height="20"></image>
<image id="1" name="unsure.png" width="30" height="20"><tag label="Unsure"/></image>
<image id="2" name="bad.png" width="30" height="20">{shape}</image></annotations>"""
CVAT_SHAPES = {
    "box": '<box label="dent" xtl="6.0" ytl="3.0" xbr="9.0" ybr="5.0"/>',
    "mask": '<mask label="dent" rle="0, 6" left="6" top="3" width="3" height="2"/>',
    "polygon": '<polygon label="dent" points="6.0,3.0;8.0,3.0;8.0,4.0;6.0,4.0"/>',
}


@pytest.mark.parametrize("shape", CVAT_SHAPES)
def test_cvat_says_what_is_good_unsure_and_where_defects_are(tmp_path: Path, shape: str) -> None:
    (tmp_path / "annotations.xml").write_text(CVAT.format(shape=CVAT_SHAPES[shape]))
    found = {one.image.stem: one for one in read_labels(tmp_path / "annotations.xml")}
    assert {name: one.value for name, one in found.items()} == {
        "good": "fine",
        "unsure": "unsure",
        "bad": "defect",
    }
    expected = np.zeros((20, 30), bool)
    expected[3:5, 6:9] = True
    assert found["bad"].kind == "dent" and np.array_equal(mask_of(found["bad"].marks, (20, 30)), expected)


@pytest.mark.parametrize("kind", ["rectanglelabels", "polygonlabels", "brushlabels"])
def test_label_studio_says_what_is_good_and_where_defects_are(tmp_path: Path, kind: str) -> None:
    expected = np.zeros((20, 30), bool)
    expected[3:5, 6:9] = True
    value = {
        "rectanglelabels": {"x": 20.0, "y": 15.0, "width": 10.0, "height": 10.0, "rotation": 0},
        "polygonlabels": {"points": [[20, 15], [80 / 3, 15], [80 / 3, 20], [20, 20]]},
        "brushlabels": {"format": "rle", "rle": label_studio_brush(expected)},
    }[kind]
    drawn = {"type": kind, "original_width": 30, "original_height": 20, "value": {**value, kind: ["dent"]}}
    said = {"type": "choices", "value": {"choices": ["good"]}}
    old = {"result": [said]}
    tasks = [
        {"data": {"image": "/data/upload/1/0123abcd-bad.png"}, "annotations": [old, {"result": [drawn]}]},
        {"data": {"image": "/data/local-files/?d=in/good.png"}, "annotations": [{"result": [said]}]},
        {"data": {"image": "later.png"}, "annotations": []},
        {"data": {"image": "skipped.png"}, "annotations": [{"result": [], "was_cancelled": True}]},
    ]
    image(tmp_path / "bad.png"), image(tmp_path / "in/good.png")
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    bad, good = read_labels(tmp_path / "tasks.json")
    assert (bad.image, good.image) == (tmp_path / "bad.png", tmp_path / "in/good.png")
    assert (good.value, bad.value, bad.kind) == ("fine", "defect", "dent")
    assert np.array_equal(mask_of(bad.marks, (20, 30)), expected)


def test_a_turned_rectangle_lies_where_it_was_drawn(tmp_path: Path) -> None:
    value = {"x": 50.0, "y": 50.0, "width": 20.0, "height": 10.0, "rotation": 90, "rectanglelabels": ["dent"]}
    drawn = {"type": "rectanglelabels", "original_width": 30, "original_height": 20, "value": value}
    tasks = [{"data": {"image": "a.png"}, "annotations": [{"result": [drawn]}]}]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    (found,) = read_labels(tmp_path / "tasks.json")
    assert sorted(found.marks[0]) == [(13, 10), (13, 16), (15, 10), (15, 16)]


def test_a_labelme_mask_lies_where_its_corner_says(tmp_path: Path) -> None:
    _, png = cv2.imencode(".png", np.full((2, 3), 255, np.uint8))
    shape = {
        "label": "x",
        "shape_type": "mask",
        "points": [[6, 3], [9, 5]],
        "mask": base64.b64encode(png).decode(),
    }
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))
    (found,) = read_labels(tmp_path / "a.json")
    expected = np.zeros((20, 30), bool)
    expected[3:5, 6:9] = True
    assert np.array_equal(mask_of(found.marks, (20, 30)), expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "picture,label\nx,ok\n", "no column 'image'"),
        ("a.csv", "image,label\nx,\n", "line 2: image or label is empty"),
        ("a.csv", "image,label\n", "holds no labels"),
        ("a.json", "{", "no JSON file"),
        ("a.json", "{}", "neither COCO"),
        ("a.json", '{"images": [{}], "annotations": []}', "not as labelling tools write it"),
        ("a.json", '[{"annotations": [{"result": [{}]}]}]', "not as labelling tools write it"),
        ("a.xml", "<annotations><image/></annotations>", "not as CVAT writes it"),
        ("a.xml", "<annotations>", "not as CVAT writes it"),
        ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "not as CVAT writes it"),
        ("a.txt", "", "no folder, .csv, .json or .xml"),
    ],
)
def test_what_holds_no_labels_is_named_in_one_line(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_labels(tmp_path / name)


def test_the_command_stores_and_lists_labels(tmp_path: Path) -> None:
    image(tmp_path / "checked/good/1.png")
    image(tmp_path / "checked/defect/dent/2.png", value=9)
    run = CliRunner()
    database = ["--database", str(tmp_path / "line.db")]
    for _ in range(2):
        done = run.invoke(
            app, ["label", str(tmp_path / "checked"), "--reviewer", "anna", "--json", *database]
        )
        assert done.exit_code == 0, done.output
    assert '{"new": 0, "changed": 0, "unchanged": 2}' in done.output
    listed = run.invoke(app, ["label", "--json", *database])
    rows = [json.loads(line) for line in listed.output.splitlines() if line.startswith("{")]
    assert [(row["label"], row["kind"], row["reviewer"]) for row in rows] == [
        ("fine", None, "anna"),
        ("defect", "dent", "anna"),
    ]
    assert "dent" in run.invoke(app, ["label", *database]).output


def test_labels_that_are_written_are_read_back_as_they_were(tmp_path: Path) -> None:
    labels = [
        labelled(image(tmp_path / f"in/{name}.png", value=number), **values)
        for number, (name, values) in enumerate(
            [
                ("a", {}),
                (
                    "b",
                    {
                        "value": "defect",
                        "kind": "dent/../x",
                        "marks": (box(2, 3, 4, 5), ((20, 1), (25, 1), (25, 9))),
                    },
                ),
                ("c", {"value": "unsure"}),
            ]
        )
    ]
    assert write_coco(labels, tmp_path / "coco.json") == 2
    assert write_labelme(labels, tmp_path / "labelme") == 2
    assert write_mvtec(labels, tmp_path / "mvtec") == 2
    for source in ("coco.json", "labelme", "mvtec"):
        found = {one.value: one for one in read_labels(tmp_path / source)}
        assert set(found) == {"fine", "defect"}, source
        drawn, read = (mask_of(one.marks, (20, 30)) for one in (labels[1], found["defect"]))
        assert np.array_equal(drawn, read), source
    kinds = [path.name for path in (tmp_path / "mvtec/test").iterdir()]
    assert sorted(kinds) == ["dent____x", "good"]


@pytest.mark.parametrize("write", [write_coco, write_labelme, write_mvtec])
def test_another_image_under_the_name_of_a_labelled_one_is_not_written_with_its_label(
    write: Callable[[Sequence[Label], Path], int], tmp_path: Path
) -> None:
    labels = [labelled(image(tmp_path / "part.png", value=1))]
    image(tmp_path / "part.png", value=2)
    with pytest.raises(ImageError, match=r"part\.png: is not what was labelled"):
        write(labels, tmp_path / "out")


def test_the_command_exports_labels(tmp_path: Path) -> None:
    image(tmp_path / "checked/defect/dent/2.png", value=9)
    run, database = CliRunner(), ["--database", str(tmp_path / "line.db")]
    run.invoke(app, ["label", str(tmp_path / "checked"), *database])
    for place, form in (("out.json", "mvtec"), ("folder", "mvtec"), ("files", "labelme")):
        done = run.invoke(app, ["label", "--export", str(tmp_path / place), "--as", form, *database])
        assert done.exit_code == 0 and (tmp_path / place).exists(), done.output
    assert (
        run.invoke(app, ["label", "--export", str(tmp_path / "x"), "--as", "yolo", *database]).exit_code == 2
    )
