"""Laws of the images that a station keeps: a share of the ok ones, no more than the quota, looked at in small steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from energyad.station import images
from energyad.station.config import ImagesConfig
from energyad.station.images import GIB, ORDER, ImageKeeper

SIZE = 100


def put(folder: Path, names: Mapping[str, int]) -> None:
    """Images of one size, by name and age."""
    for name, age in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(SIZE))
        os.utime(path, (1e9 - age, 1e9 - age))


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def keeper(folder: Path, *, quota: int | None = None, ok_share: float = 1.0) -> ImageKeeper:
    gib = None if quota is None else quota / GIB
    return ImageKeeper(ImagesConfig(folder=folder, quota_gib=gib, ok_share=ok_share))


@pytest.mark.parametrize("kept", [0, 1, 3, 6])
def test_beyond_the_quota_ok_images_go_before_others_and_old_ones_before_new(
    kept: int, tmp_path: Path
) -> None:
    in_order = ["ok/b.png", "ok/line/a.png", "review/new.png", "ng/old.png", "ng/new.jpg", "quarantine/a.png"]
    put(tmp_path, dict(zip(in_order, (9, 1, 1, 99, 2, 999), strict=True)))
    put(tmp_path, {"ng/notes.txt": 9999, "ng/.hidden.png": 9999, "elsewhere/a.png": 9999})
    others = names_in(tmp_path) - set(in_order)
    one = keeper(tmp_path, quota=kept * SIZE + SIZE // 2)
    assert one.tidy() == len(in_order) - kept == one.num_removed
    assert names_in(tmp_path) == others | set(in_order[len(in_order) - kept :])


def test_a_share_of_ok_images_is_kept_by_name_and_every_other_image(tmp_path: Path) -> None:
    put(tmp_path, {f"{verdict}/{number}.png": 0 for verdict in ORDER for number in range(200)})
    keeper(tmp_path, ok_share=0.25).tidy()
    kept = names_in(tmp_path)
    assert 30 < sum(name.startswith("ok/") for name in kept) < 70
    assert len(kept) - sum(name.startswith("ok/") for name in kept) == 200 * (len(ORDER) - 1)
    assert keeper(tmp_path, ok_share=0.25).tidy() == 0


@pytest.mark.parametrize("count", [1, 7, 20, 100])
def test_a_look_in_steps_looks_at_so_many_images_at_a_time_and_does_what_one_at_once_does(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"{verdict}/{number:02d}.png": number for verdict in ("ok", "ng") for number in range(20)}
    for folder in ("at once", "in steps"):
        put(tmp_path / folder, names)
    options = {"quota": 15 * SIZE, "ok_share": 0.5}
    removed = keeper(tmp_path / "at once", **options).tidy()  # type: ignore[arg-type]

    looked: list[str] = []

    def look(path: Path) -> bool:
        looked.append(path.name)
        return True

    monkeypatch.setattr(images, "is_image", look)
    one = keeper(tmp_path / "in steps", **options)  # type: ignore[arg-type]
    assert one.look_at(count) and not looked  # which begins the first look
    steps = 1
    while not one.look_at(count):
        assert len(looked) <= steps * count + 1
        steps += 1
    assert one.num_removed == removed and len(looked) == len(names)
    assert steps >= len(names) // count
    assert names_in(tmp_path / "in steps") == names_in(tmp_path / "at once")


def test_where_nothing_was_moved_yet_nothing_is_looked_at(tmp_path: Path) -> None:
    one = keeper(tmp_path / "not there", quota=1)
    assert one.tidy() == 0 and one.look_at(5) and one.look_at(5)
