"""The demo category: **synthetic** images of a bottle mouth with six kinds of flaw, rendered from a seed.

It shows the program at work where no data is at hand, and says nothing about performance on real parts.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, UInt8

from energyad.data.datasets import Category, open_category
from energyad.data.demo.flaws import FLAWS
from energyad.data.demo.part import draw_part, draw_view, expose
from energyad.errors import DataError, SettingsError
from energyad.images.reading import write_png

__all__ = ["DEMO_NAME", "FLAWS", "render_demo", "render_flawed", "render_good"]

DEMO_NAME: Final = "synthetic_bottle"
_MARKER: Final = "SYNTHETIC.json"
_SPLITS: Final = ("train", "test")


def render_demo(
    root: str | Path,
    *,
    seed: int = 0,
    train: int = 60,
    good: int = 20,
    per_flaw: int = 8,
    size: int = 256,
    name: str = DEMO_NAME,
) -> Category:
    """Write the demo category to `<root>/<name>` in the MVTec AD layout; a seed always gives the same bytes.

    An earlier rendering is replaced as a whole; any other folder of that name is left alone (`DataError`).
    """
    if min(train, size // 64) < 1 or min(good, per_flaw, seed) < 0:
        raise SettingsError("the demo needs a training image, 64 pixels, and no negative number")
    base, target = Path(root), Path(root) / name
    if target.exists() and not (target / _MARKER).is_file():
        raise DataError(f"{target}: exists and is no rendered demo; move it away or choose another folder")
    settings = {"seed": seed, "train": train, "good": good, "per_flaw": per_flaw, "size": size}
    try:
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base, prefix=f".{name}.") as work:
            _write_images(Path(work) / name, **settings)
            note = {"synthetic": True, "what": "rendered by energyad; no photograph of any part", **settings}
            (Path(work) / name / _MARKER).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            (Path(work) / name).rename(target)
    except OSError as error:
        raise DataError(f"{base}: cannot be written: {(error.strerror or str(error)).lower()}") from error
    return open_category(name, data_root=base)


def _write_images(folder: Path, *, seed: int, train: int, good: int, per_flaw: int, size: int) -> None:
    for split, count in (("train", train), ("test", good)):
        for index in range(count):
            image = render_good(seed, split, index, size=size)
            write_png(folder / split / "good" / f"{index:03}.png", image)
    for flaw in FLAWS:
        for index in range(per_flaw):
            severity = 1 - 0.8 * index / max(per_flaw - 1, 1)  # the last is hard to see, not impossible
            image, mask = render_flawed(seed, flaw, index, severity=severity, size=size)
            write_png(folder / "test" / flaw / f"{index:03}.png", image)
            write_png(folder / "ground_truth" / flaw / f"{index:03}_mask.png", mask)


def render_good(seed: int, split: str, index: int, *, size: int = 256) -> UInt8[np.ndarray, "size size 3"]:
    """Render one good part; `split` is train or test, which never share an image."""
    pose, glass, camera, _ = _streams(seed, 0, _SPLITS.index(split), index)
    return expose(draw_part(draw_view(pose, size), glass), camera)


def render_flawed(
    seed: int, flaw: str, index: int, *, severity: float, size: int = 256
) -> tuple[UInt8[np.ndarray, "size size 3"], Bool[np.ndarray, "size size"]]:
    """Render one part with a flaw of `FLAWS`, and the mask of its flaw. `severity` 0 is faint, 1 is plain."""
    pose, glass, camera, damage = _streams(seed, 1, sorted(FLAWS).index(flaw), index)
    view = draw_view(pose, size)
    image, mask = FLAWS[flaw](draw_part(view, glass), view, damage, severity)
    return expose(image, camera), mask


def _streams(*key: int) -> list[np.random.Generator]:
    """Four generators of one image: a flaw added or changed leaves part, light and noise as they were."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(key).spawn(4)]
