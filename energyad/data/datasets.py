"""Images → data sets: the folders of MVTec AD, plain folders of good parts, and where they come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from energyad.errors import DataError
from energyad.images.finding import IMAGE_SUFFIXES, find_images

DATA_ROOT_VARIABLE: Final = "ENERGYAD_DATA_ROOT"
DEFAULT_DATA_ROOT: Final = Path("datasets/MVTecAD")  # anomalib's default

MVTEC_CATEGORIES: Final = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)


@dataclass(frozen=True)
class TestItem:
    """One test image. `mask` is None for good parts, and for defects whose data set has no masks."""

    __test__ = False  # no pytest class, whatever its name

    path: Path
    defect_type: str
    mask: Path | None

    @property
    def is_defective(self) -> bool:
        """Whether the image shows a defect, by the folder it lies in."""
        return self.defect_type != "good"


@dataclass(frozen=True)
class Category:
    """One kind of part: good images to fit on, and test images where there are any. Paths are sorted.

    united: where it is several categories as one, the name of each good image's own.
    """

    name: str
    root: Path
    train_good: tuple[Path, ...]
    test: tuple[TestItem, ...]
    united: tuple[str, ...] | None = None

    @property
    def has_masks(self) -> bool:
        """Whether every defective test image has its mask, so that pixel figures can be computed."""
        defective = [item for item in self.test if item.is_defective]
        return bool(defective) and all(item.mask is not None for item in defective)

    @property
    def defect_types(self) -> tuple[str, ...]:
        """Names of the defects under test, sorted, without "good"."""
        return tuple(sorted({item.defect_type for item in self.test if item.is_defective}))


def find_data_root(explicit: str | Path | None = None) -> Path:
    """Where categories lie: the argument, else the variable ENERGYAD_DATA_ROOT, else `datasets/MVTecAD`."""
    if explicit is not None:
        return Path(explicit).expanduser()
    from_environment = os.environ.get(DATA_ROOT_VARIABLE, "")
    return Path(from_environment).expanduser() if from_environment else DEFAULT_DATA_ROOT


def open_category(name: str, *, data_root: str | Path | None = None) -> Category:
    """Open `<root>/<name>` in the layout of MVTec AD: `train/good`, `test/<type>`, `ground_truth/<type>`.

    A mask is `<stem>_mask.png` or `<stem>` with any image suffix; a category without masks, or without a
    test folder, is complete all the same. Raises `DataError` where the category is absent, with the ways on.
    """
    check_category_name(name)
    base = find_data_root(data_root)
    folder = base / name
    if not folder.is_dir():
        raise DataError(_absent(name, base))
    good = folder / "train" / "good"
    if not good.is_dir():
        raise DataError(f"{folder}: no folder train/good in it; good images to fit on belong there")
    return Category(name, folder, tuple(find_images([good])), _test_items(folder))


def open_folder(path: str | Path, *, name: str) -> Category:
    """Take a plain folder, searched through, as good images of one part: no masks, no test images."""
    check_category_name(name)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{path}: no such folder; it should hold images of good parts")
    return Category(name, folder, tuple(find_images([folder])), ())


def download_category(name: str, *, data_root: str | Path | None = None) -> Category:
    """Fetch MVTec AD through anomalib (5 GB, CC BY-NC-SA 4.0) unless `name` is there already, and open it."""
    check_category_name(name)
    if name not in MVTEC_CATEGORIES:
        raise DataError(f"{name}: not a category of MVTec AD, which has {', '.join(MVTEC_CATEGORIES)}")
    base = find_data_root(data_root)
    if not (base / name).is_dir():
        from anomalib.data import MVTecAD  # seconds to import

        try:
            MVTecAD(root=base, category=name).prepare_data()
        except Exception as error:  # network, disk, archive and hash errors of several libraries
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            text = f"{name}: the download of MVTec AD to {base} failed ({cause})"
            raise DataError(
                f"{text}; check network and disk, or use --data-root or `energyad demo`"
            ) from error
    return open_category(name, data_root=base)


def present_categories(data_root: str | Path | None = None) -> tuple[str, ...]:
    """Categories that can be opened under the data root, sorted."""
    base = find_data_root(data_root)
    return tuple(sorted(path.parent.parent.name for path in base.glob("*/train/good") if path.is_dir()))


def unite(categories: Sequence[Category], *, name: str) -> Category:
    """The good images of several categories as one, for a single model of all; each is tested by itself."""
    check_category_name(name)
    good = tuple(path for category in categories for path in category.train_good)
    names = tuple(category.name for category in categories for _ in category.train_good)
    return Category(name, categories[0].root.parent, good, (), united=names)


def check_category_name(name: str) -> None:
    """Raise `DataError` for a name that is not one plain folder name and could lead out of its root."""
    bad = not name or name in {".", ".."} or name.startswith(".") or any(c in "/\\:\0\n\r" for c in name)
    if bad or name != name.strip():
        raise DataError(f"{name!r} is no category name; use a plain folder name such as screw or metal_nut")


def _absent(name: str, base: Path) -> str:
    present = present_categories(base)
    there = f"there are {', '.join(present)}" if present else "there is none"
    ways = "--data-root DIR (where your data is), --download (fetch MVTec AD) or `energyad demo` (synthetic)"
    return f"category {name} is not under {base}, {there}; ways on: {ways}"


def _test_items(folder: Path) -> tuple[TestItem, ...]:
    test = folder / "test"
    if not test.is_dir():
        return ()
    types = sorted(path.name for path in test.iterdir() if path.is_dir() and not path.name.startswith("."))
    items = []
    for defect_type in types:
        masks = {} if defect_type == "good" else _masks(folder / "ground_truth" / defect_type)
        images = (path for path in sorted((test / defect_type).iterdir()) if _is_image(path))
        items += [TestItem(path, defect_type, masks.get(path.stem)) for path in images]
    return tuple(items)


def _masks(folder: Path) -> dict[str, Path]:
    """Masks by the stem of their image. `000_mask.png` wins over `000.png` where both are present."""
    if not folder.is_dir():
        return {}
    files = sorted(
        (path for path in folder.iterdir() if _is_image(path)), key=lambda p: p.stem.endswith("_mask")
    )
    return {path.stem.removesuffix("_mask"): path for path in files}


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
