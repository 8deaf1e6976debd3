"""Laws of the demo: the same seed gives the same bytes, and a mask covers what the flaw changed."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from energyad.data.demo import DEMO_NAME, FLAWS, render_demo, render_flawed, render_good
from energyad.errors import DataError, SettingsError
from energyad.images.masks import read_mask
from energyad.images.reading import read_image

SMALL = {"train": 2, "good": 1, "per_flaw": 1, "size": 96}


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_images(tmp_path: Path) -> None:
    roots = [render_demo(tmp_path / str(run), seed=seed, **SMALL).root for run, seed in enumerate((3, 3, 4))]
    first, again, other = ([path.read_bytes() for path in files(root)] for root in roots)
    assert first == again
    assert other != first
    for flaw in FLAWS:
        here, there = (render_flawed(seed, flaw, 0, severity=1.0, size=96)[1] for seed in (3, 4))
        assert not np.array_equal(here, there)


def test_the_demo_is_a_whole_category_and_called_synthetic(tmp_path: Path) -> None:
    category = render_demo(tmp_path, **SMALL)
    assert (category.name, len(category.train_good)) == (DEMO_NAME, 2)
    assert category.defect_types == tuple(sorted(FLAWS))
    assert len(category.defect_types) >= 5
    assert category.has_masks
    assert "synthetic" in category.name
    assert json.loads((category.root / "SYNTHETIC.json").read_text())["synthetic"] is True
    for item in category.test:
        image = read_image(item.path)
        if item.mask is not None:
            assert read_mask(item.mask, shape=image.shape[:2]).any()


def test_rendering_again_replaces_the_demo_but_never_another_folder(tmp_path: Path) -> None:
    root = render_demo(tmp_path, **SMALL).root
    (root / "train" / "good" / "999.png").write_bytes(b"left over")
    assert len(render_demo(tmp_path, **SMALL).train_good) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep.txt").write_text("keep")
    with pytest.raises(DataError, match="is no rendered demo"):
        render_demo(tmp_path, name="mine", **SMALL)
    assert (tmp_path / "mine" / "keep.txt").read_text() == "keep"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", DEMO_NAME]


def test_counts_that_make_no_category_are_errors(tmp_path: Path) -> None:
    for wrong in ({"train": 0}, {"size": 10}, {"good": -1}):
        with pytest.raises(SettingsError):
            render_demo(tmp_path, **(SMALL | wrong))


def without_flaw(monkeypatch: pytest.MonkeyPatch, flaw: str, index: int, severity: float) -> np.ndarray:
    """The same part under the same light, undamaged."""
    real = FLAWS[flaw]
    monkeypatch.setitem(FLAWS, flaw, lambda image, *rest: (image, real(image, *rest)[1]))
    try:
        return render_flawed(0, flaw, index, severity=severity)[0]
    finally:
        monkeypatch.setitem(FLAWS, flaw, real)


@pytest.mark.slow
@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_mask_covers_what_the_flaw_changed_and_little_else(
    monkeypatch: pytest.MonkeyPatch, flaw: str, severity: float
) -> None:
    index = round(2 * severity)
    image, mask = render_flawed(0, flaw, index, severity=severity)
    good = without_flaw(monkeypatch, flaw, index, severity)
    change = np.abs(image.astype(float) - good).max(axis=2)
    reach = 4 if flaw != "stain" else 15  # focus, and the soft edge of a film
    near = cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1,) * 2)) > 0
    assert 4 <= mask.sum() < 0.08 * mask.size
    assert change[~near].max(initial=0) <= 2.0
    assert change[mask].mean() > 5.0
    assert change[mask].mean() > 20 * change[~mask].mean()


@pytest.mark.slow
@pytest.mark.parametrize("flaw", FLAWS)
def test_severe_flaws_change_more_than_slight_ones(monkeypatch: pytest.MonkeyPatch, flaw: str) -> None:
    damage = []
    for severity in (0.0, 1.0):
        pairs = [(render_flawed(0, flaw, i, severity=severity)[0], i) for i in range(2)]
        changes = [
            np.abs(image - without_flaw(monkeypatch, flaw, i, severity).astype(float)) for image, i in pairs
        ]
        damage.append(np.mean(changes))
    assert damage[1] > 2 * damage[0]


def test_good_parts_differ_from_one_another_but_not_in_kind() -> None:
    parts = np.stack([render_good(0, "train", i, size=128) for i in range(8)]).astype(float)
    assert min(np.abs(parts[i] - parts[0]).mean() for i in range(1, 8)) > 1.0
    assert parts.mean(axis=(1, 2, 3)).std() < 6.0
    assert not np.array_equal(render_good(0, "train", 0, size=128), render_good(0, "test", 0, size=128))


def test_brightness_alone_does_not_tell_flawed_from_good() -> None:
    good = [render_good(0, "test", i, size=128).mean() for i in range(8)]
    flawed = [render_flawed(0, name, 0, severity=0.5, size=128)[0].mean() for name in FLAWS]
    assert min(good) - 3 < np.mean(flawed) < max(good) + 3
