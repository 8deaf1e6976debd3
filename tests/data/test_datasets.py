"""Laws of data sets: what lies where, what is missing is said, no name leads out of its root."""

from __future__ import annotations

import sys
import types
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from energyad.data.datasets import (
    DEFAULT_DATA_ROOT,
    MVTEC_CATEGORIES,
    Category,
    check_category_name,
    download_category,
    find_data_root,
    mask_faults,
    open_category,
    open_folder,
    present_categories,
    unite,
)
from energyad.errors import DataError
from energyad.images.reading import read_image, write_png


def make_category(root: Path, name: str = "gasket", masks: str | None = "{stem}_mask.png") -> Path:
    grey = np.zeros((4, 4), np.uint8)
    for part in ("train/good/001", "train/good/000", "test/good/000", "test/crack/000", "test/crack/001"):
        write_png(root / name / f"{part}.png", grey)
    for stem in ("000", "001"):
        if masks is not None:
            write_png(root / name / "ground_truth" / "crack" / masks.format(stem=stem), grey)
    return root


def test_a_category_lists_good_parts_tests_and_masks_in_order(tmp_path: Path) -> None:
    category = open_category("gasket", data_root=make_category(tmp_path))
    assert [path.name for path in category.train_good] == ["000.png", "001.png"]
    assert [(i.defect_type, i.path.name, i.is_defective) for i in category.test] == [
        ("crack", "000.png", True),
        ("crack", "001.png", True),
        ("good", "000.png", False),
    ]
    assert category.has_masks
    assert category.defect_types == ("crack",)


@pytest.mark.parametrize("pattern", ["{stem}_mask.png", "{stem}.png"])
def test_masks_belong_to_the_image_of_their_stem(tmp_path: Path, pattern: str) -> None:
    category = open_category("gasket", data_root=make_category(tmp_path, masks=pattern))
    for item in category.test:
        wanted = pattern.format(stem=item.path.stem) if item.is_defective else None
        assert (item.mask.name if item.mask is not None else None) == wanted


def image(path: Path, grey: np.ndarray | None = None) -> Path:
    return write_png(path, np.zeros((4, 6), np.uint8) if grey is None else grey)


def opened(root: Path) -> Category:
    """The category "nut", whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_category("nut", data_root=root)


@pytest.mark.parametrize("name", ["OK", "ok", "normal", "Good", "NORMAL"])
def test_test_images_in_a_folder_of_good_parts_are_good_whatever_it_is_called(
    tmp_path: Path, name: str
) -> None:
    image(tmp_path / "nut" / "train" / name / "0.png")
    image(tmp_path / "nut" / "test" / name / "0.png")
    image(tmp_path / "nut" / "test" / "crack" / "0.png")
    category = open_category("nut", data_root=tmp_path)
    assert [item.is_defective for item in category.test] == [True, False]
    assert category.defect_types == ("crack",)
    assert present_categories(tmp_path) == ("nut",)


def test_without_a_folder_of_good_parts_the_types_taken_for_defects_are_named(tmp_path: Path) -> None:
    image(tmp_path / "nut" / "train" / "good" / "0.png")
    image(tmp_path / "nut" / "test" / "fine" / "0.png")
    with pytest.warns(UserWarning, match=r"all its images count as defects \(fine\)"):
        open_category("nut", data_root=tmp_path)


def test_nested_test_images_and_masks_are_found_and_images_beside_the_types_counted(tmp_path: Path) -> None:
    root = tmp_path / "nut"
    image(root / "train" / "good" / "day1" / "0.png")
    image(root / "test" / "good" / "day2" / "0.png")
    image(root / "test" / "crack" / "left" / "0.png")
    image(root / "test" / "crack" / "right" / "0.png")
    image(root / "ground_truth" / "crack" / "left" / "0_mask.png")
    image(root / "ground_truth" / "crack" / "right" / "0_mask.png")
    image(root / "test" / "stray.png")
    with pytest.warns(UserWarning, match="1 images lie beside the folders"):
        category = open_category("nut", data_root=tmp_path)
    masks = {item.path.parent.name: item.mask for item in category.test}
    assert masks["left"] == root / "ground_truth" / "crack" / "left" / "0_mask.png"
    assert masks["right"] == root / "ground_truth" / "crack" / "right" / "0_mask.png"
    assert masks["day2"] is None and len(masks) == 3


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("ground_truth", "000_gt.png"),
        ("Ground_Truth", "000_MASK.PNG"),
        ("masks", "000.bmp"),
        ("GT", "000-mask.png"),
    ],
)
def test_masks_are_found_under_other_names_and_in_other_case(tmp_path: Path, folder: str, name: str) -> None:
    image(tmp_path / "nut" / "train" / "good" / "0.png")
    image(tmp_path / "nut" / "test" / "crack" / "000.png")
    image(tmp_path / "nut" / folder / "crack" / "x.png").rename(tmp_path / "nut" / folder / "crack" / name)
    (item,) = (found for found in opened(tmp_path).test if found.is_defective)
    assert item.mask == tmp_path / "nut" / folder / "crack" / name


def test_masks_that_match_no_image_and_images_without_a_mask_are_counted(tmp_path: Path) -> None:
    image(tmp_path / "nut" / "train" / "good" / "0.png")
    image(tmp_path / "nut" / "test" / "good" / "0.png")
    for stem in ("000", "001", "002"):
        image(tmp_path / "nut" / "test" / "crack" / f"{stem}.png")
    for stem in ("000_mask", "001_mask", "1002"):
        image(tmp_path / "nut" / "ground_truth" / "crack" / f"{stem}.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        category = open_category("nut", data_root=tmp_path)
    texts = "\n".join(str(warning.message) for warning in caught)
    assert "1 masks match no image, 1002.png" in texts
    assert "1 of 3 defective images have no mask, 002.png" in texts
    assert not category.has_masks


def folder_of(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def rectangle(*, inverted: bool = False) -> np.ndarray:
    mask = np.zeros((8, 12), bool)
    mask[1:3, 2:7] = True
    return ~mask if inverted else mask


def write_masks(root: Path, *masks: np.ndarray) -> None:
    """Write the category "nut" with one defective image for each mask."""
    shape = masks[0].shape[:2]
    image(root / "nut" / "train" / "good" / "0.png")
    image(root / "nut" / "test" / "good" / "0.png", np.zeros(shape, np.uint8))
    for number, mask in enumerate(masks):
        image(root / "nut" / "test" / "crack" / f"{number}.png", np.zeros(shape, np.uint8))
        Image.fromarray(mask).save(folder_of(root / "nut" / "ground_truth" / "crack") / f"{number}_mask.png")


def masks_read(category: Category, shape: tuple[int, int]) -> list[np.ndarray]:
    return [item.read_mask(shape) for item in category.test if item.is_defective]


def test_masks_that_mark_the_background_are_read_inverted_and_said(tmp_path: Path) -> None:
    write_masks(tmp_path, *[rectangle(inverted=True).astype(np.uint8) * 255] * 3)
    with pytest.warns(UserWarning, match="read inverted"):
        category = open_category("nut", data_root=tmp_path)
    assert all((mask == rectangle()).all() for mask in masks_read(category, (8, 12)))


def test_one_large_defect_among_small_ones_is_not_taken_for_an_inverted_mask(tmp_path: Path) -> None:
    masks = [rectangle(inverted=True), rectangle(), rectangle()]
    write_masks(tmp_path, *(mask.astype(np.uint8) * 255 for mask in masks))
    found = masks_read(opened(tmp_path), (8, 12))
    assert all((read == mask).all() for read, mask in zip(found, masks, strict=True))


def test_soft_classed_and_transparent_masks_are_read_as_drawn_and_counted(tmp_path: Path) -> None:
    truth = np.zeros((40, 60), bool)
    truth[10:30, 20:45] = True
    soft = cv2.GaussianBlur(truth.astype(np.float32) * 255, (0, 0), 3).astype(np.uint8)
    classes = truth.astype(np.uint8) * 3
    classes[15:20] *= 2
    alpha = np.zeros((*truth.shape, 4), np.uint8)
    alpha[..., 3] = truth * 255
    write_masks(tmp_path, soft, classes, alpha)
    category = opened(tmp_path)
    found = masks_read(category, truth.shape)
    assert (found[0] == truth).mean() > 0.98
    assert (found[1] == truth).all() and (found[2] == truth).all()
    faults = "\n".join(mask_faults(category))
    assert "1 masks are soft" in faults and "1 masks are told by transparency" in faults


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_of_photographs_turned_by_exif_lie_as_their_image_where_the_shape_tells(
    tmp_path: Path, orientation: int
) -> None:
    root = tmp_path / "nut"
    image(root / "train" / "good" / "0.png")
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph = Image.fromarray(rectangle().astype(np.uint8) * 255)
    photograph.save(folder_of(root / "test" / "crack") / "0.png", exif=exif)
    photograph.save(folder_of(root / "ground_truth" / "crack") / "0_mask.png")
    category = opened(tmp_path)
    upright = read_image(root / "test" / "crack" / "0.png")[:, :, 0] > 0
    (mask,) = masks_read(category, upright.shape)
    faults = mask_faults(category)
    if orientation in (1, 5, 6, 7, 8):
        assert (mask == upright).all() and not faults
    else:
        assert "1 images are turned by their EXIF orientation" in faults[0]


def test_a_category_without_masks_or_tests_opens(tmp_path: Path) -> None:
    category = open_category("gasket", data_root=make_category(tmp_path, masks=None))
    assert not category.has_masks
    assert all(item.mask is None for item in category.test)
    write_png(tmp_path / "plain" / "train" / "good" / "0.png", np.zeros((4, 4), np.uint8))
    assert open_category("plain", data_root=tmp_path).test == ()


def test_the_root_is_the_argument_then_the_environment_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ENERGYAD_DATA_ROOT", raising=False)
    assert find_data_root() == DEFAULT_DATA_ROOT
    monkeypatch.setenv("ENERGYAD_DATA_ROOT", str(make_category(tmp_path)))
    assert open_category("gasket").root == tmp_path / "gasket"
    assert find_data_root("elsewhere") == Path("elsewhere")


def test_an_absent_category_names_the_three_ways_on_and_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_category("bottle", data_root=make_category(tmp_path))
    message = str(caught.value)
    for part in ("bottle", str(tmp_path), "gasket", "--data-root", "--download", "energyad demo"):
        assert part in message
    assert "\n" not in message


def test_a_category_without_good_parts_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gasket" / "test").mkdir(parents=True)
    with pytest.raises(DataError, match="train/good"):
        open_category("gasket", data_root=tmp_path)
    (tmp_path / "gasket" / "train" / "good").mkdir(parents=True)
    with pytest.raises(DataError, match="no image in this folder"):
        open_category("gasket", data_root=tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a\\b", "/etc", "a\0b", " a", ".git", "C:x"])
def test_names_that_could_leave_the_root_are_refused(tmp_path: Path, name: str) -> None:
    for opened in (
        lambda: open_category(name, data_root=tmp_path),
        lambda: open_folder(tmp_path, name=name),
        lambda: download_category(name, data_root=tmp_path),
    ):
        with pytest.raises(DataError, match="no category name"):
            opened()


@pytest.mark.slow
@given(st.text(max_size=12))
def test_accepted_names_are_one_folder_below_the_root(name: str) -> None:
    try:
        check_category_name(name)
    except DataError:
        return
    path = Path("/root") / name
    assert path.parent == Path("/root")
    assert path.name == name


def test_a_plain_folder_is_good_images_and_nothing_else(tmp_path: Path) -> None:
    write_png(tmp_path / "day1" / "b.png", np.zeros((4, 4), np.uint8))
    write_png(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    category = open_folder(tmp_path, name="gasket")
    assert [path.name for path in category.train_good] == ["a.png", "b.png"]
    assert category.test == ()
    with pytest.raises(DataError, match="no such folder"):
        open_folder(tmp_path / "none", name="gasket")


def stand_in(monkeypatch: pytest.MonkeyPatch, prepare: object) -> list[tuple[Path, str]]:
    asked: list[tuple[Path, str]] = []

    class MVTecAD:
        def __init__(self, root: Path, category: str) -> None:
            self.root, self.category = root, category

        def prepare_data(self) -> None:
            asked.append((self.root, self.category))
            prepare(self.root, self.category)  # type: ignore[operator]

    module = types.ModuleType("anomalib.data")
    module.MVTecAD = MVTecAD  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "anomalib", types.ModuleType("anomalib"))
    monkeypatch.setitem(sys.modules, "anomalib.data", module)
    return asked


def test_download_goes_through_anomalib_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, make_category)
    for _ in range(2):
        assert download_category("bottle", data_root=tmp_path).name == "bottle"
    assert asked == [(tmp_path, "bottle")]


def test_a_failed_download_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("name resolution\nfailed")

    stand_in(monkeypatch, fail)
    with pytest.raises(DataError, match=r"name resolution failed.*--data-root") as caught:
        download_category("bottle", data_root=tmp_path)
    assert "\n" not in str(caught.value)


def test_only_mvtec_categories_can_be_downloaded(tmp_path: Path) -> None:
    assert len(MVTEC_CATEGORIES) == 15
    with pytest.raises(DataError, match=r"not a category of MVTec AD.*zipper"):
        download_category("gasket", data_root=tmp_path)


def test_categories_are_united_for_one_model_and_tested_by_themselves(tmp_path: Path) -> None:
    both = [open_category(name, data_root=make_category(tmp_path, name)) for name in ("bolt", "nut")]
    united = unite(both, name="unified")
    assert united.train_good == both[0].train_good + both[1].train_good
    assert united.test == () and both[0].united is None
    assert united.united == tuple(c.name for c in both for _ in c.train_good)
    with pytest.raises(DataError):
        unite(both, name="../up")
