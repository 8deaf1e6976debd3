"""Laws of data sets: what lies where, what is missing is said, no name leads out of its root."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energyad.data.datasets import (
    DEFAULT_DATA_ROOT,
    MVTEC_CATEGORIES,
    check_category_name,
    download_category,
    find_data_root,
    open_category,
    open_folder,
    unite,
)
from energyad.errors import DataError
from energyad.images.reading import write_png


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
