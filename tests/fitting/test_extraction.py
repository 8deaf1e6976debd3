from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from energyad import FitSettings
from energyad.errors import DataError, ImageError
from energyad.features.grids import Grid, Scale
from energyad.files import CACHE_VARIABLE
from energyad.fitting import feature_store
from energyad.fitting.context import FitContext
from energyad.fitting.extraction import GoodFeatures, extract
from energyad.fitting.feature_store import DiskFeatureStore, MemoryFeatureStore, open_feature_store, release
from energyad.images.reading import write_png
from energyad.runtimes.plan import default_plan

SETTINGS = FitSettings().with_values({"input.image_size": 32})


class Blocks:
    """Stands in for the backbone: means of 8 × 8 blocks as features; counts the images it saw."""

    plan = default_plan(2)
    fingerprint = "blocks"

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen = 0
        self.stop_after = stop_after

    def run(self, pixels: np.ndarray) -> np.ndarray:
        self.seen += len(pixels)
        if self.stop_after is not None and self.seen > self.stop_after:
            raise KeyboardInterrupt
        blocks = pixels.astype(np.float32).reshape(len(pixels), 4, 8, 4, 8, 3)
        return blocks.mean(axis=(2, 4)).transpose(0, 3, 1, 2)


@pytest.fixture
def good_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    return [write_png(tmp_path / f"{index:02}.png", image) for index, image in enumerate(pixels)]


def features_of(files: list[Path], session: Blocks, *, skip_bad: bool = False) -> GoodFeatures:
    running: Any = session
    grid = Grid.square(image_size=32, size=4, margin=0)
    return extract(
        files,
        FitContext(settings=SETTINGS, session=running, grid=grid, scales=(Scale(0, 3),), skip_bad=skip_bad),
    )


def use_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "BYTES_PER_IMAGE", feature_store.IN_MEMORY)


def test_disk_and_memory_hold_the_same_features(
    good_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = features_of(good_files, Blocks())
    use_the_disk(monkeypatch)
    on_disk = features_of(good_files, Blocks())
    assert isinstance(in_memory.store, MemoryFeatureStore) and isinstance(on_disk.store, DiskFeatureStore)
    assert isinstance(on_disk.features, np.memmap) and on_disk.features.dtype == np.float16
    np.testing.assert_array_equal(on_disk.features, in_memory.features)
    assert on_disk.indices == in_memory.indices == tuple(range(30))


def test_features_are_the_images_own_in_their_order(good_files: list[Path]) -> None:
    whole = features_of(good_files, Blocks())
    for place in (0, 13, 29):
        alone = features_of([good_files[place], good_files[0]], Blocks()).features[0]
        np.testing.assert_array_equal(whole.features[place], alone)


def test_an_interrupted_fit_goes_on_with_images_not_yet_extracted(
    good_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = features_of(good_files, Blocks())
    use_the_disk(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        features_of(good_files, Blocks(stop_after=16))
    again = Blocks()
    resumed = features_of(good_files, again)
    assert again.seen < 30
    np.testing.assert_array_equal(resumed.features, expected.features)


@pytest.mark.parametrize(("lost_bytes", "lost_letters"), [(50, 3), (50, 0), (0, 3)])
def test_a_half_written_row_is_extracted_again(
    lost_bytes: int, lost_letters: int, good_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = features_of(good_files, Blocks())
    use_the_disk(monkeypatch)
    store = features_of(good_files, Blocks()).store
    assert isinstance(store, DiskFeatureStore)
    features, places = store.folder / "features.f16", store.folder / "indices.jsonl"
    os.truncate(features, features.stat().st_size - lost_bytes)
    del store  # as if its fit had been killed
    text = places.read_text(encoding="utf-8")
    places.write_text(text[: len(text) - lost_letters], encoding="utf-8")
    session = Blocks()
    again = features_of(good_files, session)
    assert 1 <= session.seen <= 4
    np.testing.assert_array_equal(again.features, expected.features)


def test_nothing_is_left_on_the_disk_once_the_fit_is_done(
    good_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_the_disk(monkeypatch)
    good = features_of(good_files, Blocks())
    assert any(feature_store._folder().iterdir())
    good.discard()
    assert not any(path.is_dir() for path in feature_store._folder().iterdir())  # an empty lock file stays


def test_another_file_or_setting_is_another_place(good_files: list[Path]) -> None:
    def place(files: list[Path], key: str = "a") -> Path:
        rows = open_feature_store(files, key=(key,), limit=0)
        assert isinstance(rows, DiskFeatureStore)
        return rows.folder

    first = place(good_files)
    assert place(good_files) == first
    assert place(good_files, "b") != first and place(good_files[1:]) != first
    os.utime(good_files[0], (1, 1))
    assert place(good_files) != first


def test_features_forgotten_for_a_week_are_deleted(good_files: list[Path]) -> None:
    rows = open_feature_store(good_files, key=(), limit=0)
    rows.append([0], [np.zeros((4, 4, 3), np.float16)])
    assert isinstance(rows, DiskFeatureStore)
    folder = rows.folder
    feature_store.remove_stale()
    assert folder.exists()
    old = time.time() - feature_store.STALE_SECONDS - 60
    for path in folder.iterdir():
        os.utime(path, (old, old))
    feature_store.remove_stale()
    assert folder.exists(), "a fit that is still there keeps its features"
    del rows
    feature_store.remove_stale()
    assert not folder.exists()


def test_two_fits_of_the_same_images_at_once_never_share_a_file(
    good_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = features_of(good_files, Blocks()).features
    use_the_disk(monkeypatch)
    code = (
        "import sys, time\nfrom energyad.fitting import feature_store\n"
        "store = feature_store.open_feature_store(sys.argv[1:], key=(), limit=0)\n"
        "print(store.folder, flush=True)\ntime.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, good_files)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        taken = Path(other.stdout.readline().strip())
        mine = open_feature_store([str(path) for path in good_files], key=(), limit=0)
        assert isinstance(mine, DiskFeatureStore) and mine.folder != taken
        both = [features_of(good_files, Blocks()) for _ in range(2)]
        for features in both:
            np.testing.assert_array_equal(features.features, alone)
    finally:
        other.kill()
        other.wait()
    after_a_kill = open_feature_store([str(path) for path in good_files], key=(), limit=0)
    assert isinstance(after_a_kill, DiskFeatureStore) and after_a_kill.folder == taken


def test_a_disk_that_cannot_be_written_is_one_clear_line(
    good_files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    use_the_disk(monkeypatch)
    with pytest.raises(DataError, match="set ENERGYAD_CACHE to a roomy disk"):
        features_of(good_files, Blocks())


def test_unreadable_images_are_named_or_left_out(
    good_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_the_disk(monkeypatch)
    good_files[5].write_bytes(b"")
    with pytest.raises(ImageError, match=r"05\.png.*--skip-bad"):
        features_of(good_files, Blocks())
    with pytest.warns(UserWarning, match=r"left out: .*05\.png"):
        good = features_of(good_files, Blocks(), skip_bad=True)
    assert good.indices == (*range(5), *range(6, 30)) and len(good.features) == 29


@pytest.mark.skipif(
    not Path("/proc/self/smaps").exists(), reason="reads a process's memory as Linux tells it"
)
def test_pages_that_were_given_back_are_no_longer_held_and_read_the_same_again(tmp_path: Path) -> None:
    rows = DiskFeatureStore(tmp_path / "rows")
    wanted = np.random.default_rng(0).normal(size=(64, 64, 64, 8)).astype(np.float16)
    rows.append(range(64), list(wanted))
    features, _ = rows.finish()

    def held() -> int:
        lines = Path("/proc/self/smaps").read_text().splitlines()
        start = next(index for index, line in enumerate(lines) if line.endswith("features.f16"))
        return next(int(line.split()[1]) for line in lines[start:] if line.startswith("Rss:"))

    assert float(features.sum()) == float(wanted.sum())
    assert held() >= wanted.nbytes // 1024
    release(features)
    assert held() == 0
    np.testing.assert_array_equal(features, wanted)
