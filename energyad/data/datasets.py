"""Images → data sets: the folders of MVTec AD, plain folders of good parts, and where they come from."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool

from energyad.errors import DataError, ImageError
from energyad.extras import require
from energyad.images.finding import find_images, is_image
from energyad.images.masks import TRANSPOSED, UPRIGHT, load_mask, orientation_of, read_mask_of

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


GOOD: Final = "good"
"""The type of a test image that shows no defect."""

GOOD_FOLDERS: Final = ("good", "ok", "normal")
"""Folder names that hold good parts, in any case."""

DEFECT_FOLDERS: Final = ("defect", "defects", "ng")
"""Folder names that hold defects, in any case, beside one of good parts."""

MASK_FOLDERS: Final = ("ground_truth", "groundtruth", "masks", "mask", "gt")
"""Folder names that hold masks, in any case; the first one present is taken."""

NUM_MASKS_SAMPLED: Final = 12

MASK_ENDINGS: Final = ("_mask", "-mask", "_gt", "_label", "_seg", "")
"""What a mask's name may add to its image's, in any case; an earlier one wins."""


@dataclass(frozen=True)
class TestItem:
    """One test image.

    Attributes:
        path: the image file.
        defect_type: "good", or the folder that names its defect.
        mask: the mask file; None for good parts, and for defects whose data set has no masks.
        mask_inverted: whether the mask marks what is good.
    """

    __test__ = False  # no pytest class, whatever its name

    path: Path
    defect_type: str
    mask: Path | None
    mask_inverted: bool = False

    @property
    def is_defective(self) -> bool:
        """Whether the image shows a defect, by the folder it lies in."""
        return self.defect_type != GOOD

    def read_mask(self, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """Read where the defect is; nowhere without a mask.

        Args:
            shape: height and width in pixels of the upright image.

        Raises:
            ImageError: where the mask cannot be read or does not fit its image.
        """
        if self.mask is None:
            return np.zeros(shape, dtype=bool)
        mask = read_mask_of(self.path, self.mask, shape=shape)
        return ~mask if self.mask_inverted else mask


@dataclass(frozen=True)
class Category:
    """One kind of part: good images to fit on, and test images where there are any. Paths are sorted.

    Attributes:
        name: one folder name.
        root: the category's folder.
        train_good: images of good parts.
        test: test images, by type.
        united: where it is several categories as one, the name of each good image's category.
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

    Good parts may lie in `good`, `ok` or `normal`, in any case. Test images and masks may lie in nested folders. A
    mask is named as its image, with `_mask`, `_gt` or the like added, with any image suffix. What is passed over is
    counted in a warning: images beside the type folders, masks that match no image, images without a mask where
    others have one.

    Args:
        name: one folder name.
        data_root: where categories lie; see `find_data_root`.

    Raises:
        DataError: where the category is absent, with the ways on, or has no good images.
    """
    check_category_name(name)
    base = find_data_root(data_root)
    folder = base / name
    if not folder.is_dir():
        raise DataError(_absent(name, base))
    good = _good_folders(folder / "train")
    if not good:
        names = ", ".join(path.name for path in _folders(folder / "train")) or "nothing"
        raise DataError(
            f"{folder}: no folder train/good in it (train/ holds {names}); good images to fit on belong there"
        )
    return Category(name, folder, tuple(find_images(good)), _test_items(folder))


def open_folder(path: str | Path, *, name: str) -> Category:
    """Take a plain folder, searched through, as good images of one part: no masks, no test images."""
    check_category_name(name)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{path}: no such folder; it should hold images of good parts")
    return Category(name, folder, tuple(find_images([folder])), ())


def labelled_items(folder: Path) -> tuple[TestItem, ...]:
    """List the images of a folder that people sorted: `test/` as MVTec AD has it, or `good/` and `defect/KIND/`.

    Masks lie in `ground_truth/KIND/` or another of `MASK_FOLDERS`. Images in `defect/` itself are of type "defect".
    """
    if (folder / "test").is_dir():
        return _test_items(folder)
    masks, items = _MaskFinder(folder), []
    for subfolder in _good_folders(folder):
        items += [TestItem(path, GOOD, None) for path in _images_below(subfolder)]
    for subfolder in [
        subfolder for subfolder in _folders(folder) if subfolder.name.lower() in DEFECT_FOLDERS
    ]:
        kinds = _folders(subfolder)
        items += [
            TestItem(path, "defect", masks.of(path, subfolder))
            for path in sorted(subfolder.iterdir())
            if is_image(path)
        ]
        for kind in kinds:
            items += [TestItem(path, kind.name, masks.of(path, kind)) for path in _images_below(kind)]
    masks.warn_of_leftovers([])
    return tuple(items)


def download_category(name: str, *, data_root: str | Path | None = None) -> Category:
    """Fetch MVTec AD through anomalib (5 GB, CC BY-NC-SA 4.0) unless `name` is there already, and open it."""
    check_category_name(name)
    if name not in MVTEC_CATEGORIES:
        raise DataError(f"{name}: not a category of MVTec AD, which has {', '.join(MVTEC_CATEGORIES)}")
    base = find_data_root(data_root)
    if not (base / name).is_dir():
        require("anomalib", "--download of MVTec AD")
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
    return tuple(folder.name for folder in _folders(base) if _good_folders(folder / "train"))


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
    alternatives = f"there are {', '.join(present)}" if present else "there is none"
    ways = "--data-root DIR (where your data is), --download (fetch MVTec AD) or `energyad demo` (synthetic)"
    return f"category {name} is not under {base}, {alternatives}; ways on: {ways}"


def _test_items(folder: Path) -> tuple[TestItem, ...]:
    test = folder / "test"
    if not test.is_dir():
        return ()
    masks = _MaskFinder(folder)
    items = []
    for type_folder in _folders(test):
        is_good = type_folder.name.lower() in GOOD_FOLDERS
        for path in _images_below(type_folder):
            defect_type = GOOD if is_good else type_folder.name
            items.append(TestItem(path, defect_type, None if is_good else masks.of(path, type_folder)))
    beside = sum(is_image(path) for path in test.iterdir())
    if beside:
        _warn(
            f"{test}: {beside} images lie beside the folders of test/ and are left out; move them into good/ or a type"
        )
    if items and not any(item.defect_type == GOOD for item in items):
        names = ", ".join(sorted({item.defect_type for item in items}))
        _warn(
            f"{test}: no folder {', '.join(GOOD_FOLDERS)} in it, so all its images count as defects ({names}); "
            "rename the folder of good parts to good"
        )
    masks.warn_of_leftovers([item for item in items if item.is_defective])
    if masks.are_inverted():
        _warn(f"{masks.folder}: the masks mark the background, not the defects; they are read inverted")
        items = [replace(item, mask_inverted=item.mask is not None) for item in items]
    return tuple(sorted(items, key=lambda item: (item.defect_type, item.path)))


class _MaskFinder:
    """The masks of a category, found by the names of their images."""

    def __init__(self, category: Path) -> None:
        present = {path.name.lower(): path for path in _folders(category)}
        self.folder = next((present[name] for name in MASK_FOLDERS if name in present), None)
        self._by_key: dict[tuple[str, str], Path] = {}
        self._used: set[Path] = set()
        self._all: list[Path] = [] if self.folder is None else list(_images_below(self.folder))
        for rank in range(len(MASK_ENDINGS) - 1, -1, -1):  # an earlier ending replaces a later one
            for path in self._all:
                key = self._key(path, MASK_ENDINGS[rank])
                if key is not None:
                    self._by_key[key] = path

    def of(self, image: Path, type_folder: Path) -> Path | None:
        """The mask of a test image: of the same place below the masks' folder, in any case."""
        below = image.relative_to(type_folder.parent)
        mask = self._by_key.get((below.parent.as_posix().lower(), below.stem.lower()))
        if mask is not None:
            self._used.add(mask)
        return mask

    def warn_of_leftovers(self, defective: Sequence[TestItem]) -> None:
        """Say how many masks match no image, and how many images no mask where others have one."""
        unused = [path for path in self._all if path not in self._used]
        doubled = [path for path in unused if self._shares_a_key(path)]
        unused = [path for path in unused if path not in doubled]
        if unused:
            _warn(
                f"{self.folder}: {len(unused)} masks match no image, {unused[0].name} for one; name a mask as its "
                "image (001.png) or with _mask added (001_mask.png), in a folder of the same type"
            )
        without = [item for item in defective if item.mask is None]
        if without and len(without) < len(defective):
            _warn(
                f"{self.folder}: {len(without)} of {len(defective)} defective images have no mask, "
                f"{without[0].path.name} for one, so there are no pixel figures"
            )

    def are_inverted(self) -> bool:
        """Whether all of some masks mark most of the image and most of its rim: it is the background that they mark."""
        used = sorted(self._used)
        sample = used[:: max(1, len(used) // NUM_MASKS_SAMPLED)]
        return bool(sample) and all(_marks_the_background(path) for path in sample)

    def _key(self, path: Path, ending: str) -> tuple[str, str] | None:
        stem = path.stem.lower()
        if self.folder is None or not stem.endswith(ending) or stem == ending:
            return None
        return path.relative_to(self.folder).parent.as_posix().lower(), stem.removesuffix(ending)

    def _shares_a_key(self, path: Path) -> bool:
        """Whether another mask of the same image was taken in its place."""
        keys = (self._key(path, ending) for ending in MASK_ENDINGS)
        return any(key in self._by_key and self._by_key[key] in self._used for key in keys if key is not None)


def _marks_the_background(path: Path) -> bool:
    try:
        mask = load_mask(path).defect
    except ImageError:
        return False  # named where its pixels are needed
    rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(mask.mean() > 0.5 and rim.mean() > 0.5)


def mask_faults(category: Category) -> list[str]:
    """Name, with counts, what is doubtful in a category's masks; nothing where all are clear.

    Reads every mask once. A mask that cannot be read is an error of the evaluation itself and not named here.
    """
    soft, alpha, empty, turned = 0, 0, 0, 0
    for item in category.test:
        if item.mask is None:
            continue
        try:
            mask = load_mask(item.mask)
        except ImageError:
            continue
        soft += mask.form == "soft"
        alpha += mask.form == "alpha"
        empty += not (~mask.defect if item.mask_inverted else mask.defect).any()
        orientation = orientation_of(item.path)
        is_ambiguous = orientation not in TRANSPOSED or mask.defect.shape[0] == mask.defect.shape[1]
        turned += orientation != UPRIGHT and is_ambiguous and orientation_of(item.mask) == UPRIGHT
    named = [
        (soft, "masks are soft or lossy and are cut at half of white"),
        (alpha, "masks are told by transparency alone"),
        (empty, "masks of defective images mark nothing"),
        (turned, "images are turned by their EXIF orientation and their masks are taken as upright already"),
    ]
    return [f"{category.name}: {count} {text}" for count, text in named if count]


def _good_folders(folder: Path) -> list[Path]:
    return [path for path in _folders(folder) if path.name.lower() in GOOD_FOLDERS]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    try:
        return find_images([folder])
    except DataError:
        return []


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)
