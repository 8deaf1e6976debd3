"""Laws of the detection benchmark, on a small rendered category."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.detection import __main__ as command
from benchmarks.detection import choices, sheet, synthetic_validation
from benchmarks.detection.aupimo import mean_aupimo
from benchmarks.detection.measure import Cell, draw_good, measure
from benchmarks.detection.method import Fitted, Method, read_batches
from benchmarks.detection.methods import open_method
from benchmarks.detection.ours import Energyad
from benchmarks.detection.quality import measure_quality, read_masks
from benchmarks.detection.rows import Row
from energyad.data.datasets import Category
from energyad.data.defect_kinds import KINDS
from energyad.data.defects import SyntheticDefect, draw_defect
from energyad.data.demo import render_demo
from energyad.errors import DataError, SettingsError
from energyad.evaluation import metrics
from energyad.fitting import synthetic
from energyad.images.reading import read_image
from energyad.runtimes import RawScores
from tests.quick import TINY

SIZE = 64
PLACE = np.s_[24:44, 20:40]
"""Of a planted outlier."""
PLANTED = ("knn", "mahalanobis", "padim", "patchcore-0.1")


@pytest.fixture(scope="module", autouse=True)
def few_draws() -> Iterator[None]:
    """The interval is tested where it is made; a thousand draws for each row would be most of the time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_DRAWS", 20)
        yield


@pytest.fixture(scope="module")
def category(tmp_path_factory: pytest.TempPathFactory) -> Category:
    return render_demo(tmp_path_factory.mktemp("data"), train=8, good=3, per_flaw=1, size=SIZE)


@pytest.fixture(scope="module")
def results(category: Category, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FeatureStore of four methods, written by the command."""
    path = tmp_path_factory.mktemp("results") / "rows.jsonl"
    assert run(category, path, "--methods", *PLANTED) == 0
    return path


def run(category: Category, path: Path, *options: str) -> int:
    shared = ["--data-root", str(category.root.parent), "--categories", category.name]
    return command.main(
        [*shared, "--seeds", "0", "--image-size", str(SIZE), "--results", str(path), *options]
    )


def tiny_energyad() -> Energyad:
    return Energyad(TINY.with_values({"energy.pretrain_steps": 300}))


@pytest.mark.slow
def test_a_row_says_what_how_well_at_what_cost_and_where(results: Path, category: Category) -> None:
    written = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["method"] for row in written] == list(PLANTED)
    for row in written:
        assert set(row) == {field.name for field in fields(Row)}
        assert row["num_train"] == 8
        assert row["num_test"] == len(category.test)
        assert 0 <= row["image_auroc_low"] <= row["image_auroc"] <= row["image_auroc_high"] <= 1
        assert row["model_bytes"] > 0
        assert row["image_ms"] > 0
        assert {"python", "torch", "anomalib", "onnxruntime"} <= set(row["versions"])


@pytest.mark.slow
def test_a_cell_with_a_row_of_the_same_settings_is_not_measured_again(
    results: Path, category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> list[object]:
        raise AssertionError("measured again")

    monkeypatch.setattr(command, "measure", refuse)
    before = results.read_bytes()
    assert run(category, results, "--methods", *PLANTED) == 0
    assert results.read_bytes() == before
    with pytest.raises(AssertionError, match="measured again"):
        run(category, results, "--methods", "knn", "--again")
    with pytest.raises(AssertionError, match="measured again"):
        run(category, results, "--methods", "knn", "--few-shot", "4")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["knn", "knn-unsmoothed", "knn-whitened", "mahalanobis", "padim", "mh-patchcore", "patchcore-0.1"]
)
def test_a_plainly_planted_outlier_scores_highest_and_where_it_is(name: str, category: Category) -> None:
    check_planted_outlier(open_method(name, image_size=SIZE), category)


@pytest.mark.slow
def test_energyad_has_the_same_sign(category: Category) -> None:
    check_planted_outlier(tiny_energyad(), category)


def check_planted_outlier(method: Method, category: Category) -> None:
    fitted = method.fit(category.train_good[:6], seed=0, threads=1)
    (good,) = read_batches(category.train_good[6:8], fitted.shape)
    planted = good[:1].copy()
    planted[:, *PLACE] = (255, 0, 255)
    raw = fitted.score(np.concatenate([good, planted]))
    assert raw.heatmap.shape == (3, SIZE, SIZE)
    assert raw.score.argmax() == 2
    assert raw.heatmap[2][PLACE].mean() > 1.3 * raw.heatmap[2].mean()
    assert raw.heatmap[2][PLACE].mean() > 1.3 * raw.heatmap[0][PLACE].mean()


@pytest.mark.slow
def test_a_seed_gives_the_same_peer_whatever_was_drawn_before(category: Category) -> None:
    (pixels,) = read_batches(category.train_good[4:5], (SIZE, SIZE))
    heatmaps = []
    for seed in (5, 5, 6):
        fitted = open_method("patchcore-0.1", image_size=SIZE).fit(
            category.train_good[:3], seed=seed, threads=1
        )
        heatmaps.append(fitted.score(pixels).heatmap)
        torch.rand(1), np.random.rand()  # anomalib draws from the global generators
    np.testing.assert_array_equal(heatmaps[0], heatmaps[1])
    assert (heatmaps[0] != heatmaps[2]).any()


@pytest.mark.slow
def test_unknown_methods_and_unified_peers_are_refused(
    category: Category, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match="patchcore-<ratio>"):
        open_method("patchcore", image_size=SIZE)
    assert run(category, tmp_path / "rows.jsonl", "--methods", "knn", "--unified") == 2
    assert "energyad alone" in capsys.readouterr().err
    both = ("--methods", "energyad", "--unified", "--few-shot", "4")
    assert run(category, tmp_path / "rows.jsonl", *both) == 2
    assert "one of them" in capsys.readouterr().err
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.slow
def test_unified_fits_once_on_all_and_judges_each(category: Category, tmp_path: Path) -> None:
    other = render_demo(tmp_path, seed=3, train=4, good=2, per_flaw=1, size=SIZE, name="other")
    method = CountingMethod()
    found = [row for row, _ in measure(counting_cell(category, other, method=method), threads=1)]
    assert method.fitted_on == [12]
    assert [row.category for row in found] == [category.name, "other"]
    assert all(row.unified and row.categories == (category.name, "other") for row in found)


class CountingMethod:
    """Scores an image by its mean grey."""

    image_size = SIZE
    settings: dict[str, object] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.fitted_on: list[int] = []

    def fit(self, good: list[Path], *, seed: int, threads: int) -> Fitted:
        self.fitted_on.append(len(good))
        return Fitted(lambda p: RawScores(p.mean((1, 2, 3)), p.mean(3).astype(np.float32)), (SIZE, SIZE), 1)


def counting_cell(*categories: Category, method: Method | None = None) -> Cell:
    return Cell(name="grey", method=method or CountingMethod(), categories=categories, shots=None, seed=0)


def test_few_shots_are_drawn_by_the_seed(category: Category) -> None:
    good = category.train_good
    assert draw_good(good, None, 0) == list(good)
    assert draw_good(good, 4, 1) == draw_good(good, 4, 1)
    assert len(set(draw_good(good, 4, 1))) == 4
    assert len({tuple(draw_good(good, 4, seed)) for seed in range(10)}) > 1
    with pytest.raises(DataError, match="--few-shot"):
        draw_good(good, 9, 0)


def test_figures_of_a_perfect_and_of_an_inverted_detector(category: Category) -> None:
    masks = np.stack(read_masks(category, (SIZE, SIZE)))
    assert [bool(mask.any()) for mask in masks] == [item.is_defective for item in category.test]
    heatmaps = (masks + np.random.default_rng(0).uniform(0, 0.5, masks.shape)).astype(np.float32)
    best = measure_quality(category, heatmaps.max((1, 2)), heatmaps)
    assert (best.image_auroc, best.image_auroc_low, best.best_f1) == pytest.approx((1, 1, 1))
    assert best.pixel_auroc == pytest.approx(1)
    assert best.aupro == pytest.approx(1)
    worst = measure_quality(category, -heatmaps.max((1, 2)), -heatmaps)
    assert worst.image_auroc == 0
    assert worst.pixel_auroc == pytest.approx(0)


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_aupimo_is_the_share_of_each_defect_that_is_found_before_good_pixels(unit: float) -> None:
    """Of the two defects, one is found whole and one by half; a third one's mask is too small to be seen."""
    heatmaps = np.random.default_rng(0).random((23, 128, 128), dtype=np.float32) + 1
    masks = np.zeros(heatmaps.shape, dtype=bool)
    masks[20:22, 32:64, 32:64] = True
    heatmaps[20, 32:64, 32:64] = heatmaps[21, 32:48, 32:64] = 50
    heatmaps[22] = 50
    defective = [place >= 20 for place in range(23)]
    assert mean_aupimo(unit * heatmaps, list(masks), defective) == pytest.approx(0.75, abs=0.02)
    ends_at_one_level = np.minimum(heatmaps[:20], 1.99)  # of the highest good pixels none is above another
    levelled = np.concatenate([ends_at_one_level, heatmaps[20:]])
    assert mean_aupimo(unit * levelled, list(masks), defective) == pytest.approx(0.75, abs=0.02)
    alike = np.ones_like(heatmaps)
    assert mean_aupimo(alike, list(masks), defective) is None


def test_a_category_without_masks_has_no_pixel_figures(category: Category) -> None:
    items = tuple(replace(item, mask=None) for item in category.test)
    heatmaps = np.random.default_rng(0).random((len(items), SIZE, SIZE), dtype=np.float32)
    quality = measure_quality(replace(category, test=items), heatmaps.max((1, 2)), heatmaps)
    assert (quality.pixel_auroc, quality.aupro, quality.aupimo) == (None, None, None)
    good = tuple(item for item in category.test if not item.is_defective)
    with pytest.raises(DataError, match="test/good"):
        measure(counting_cell(replace(category, test=good)), threads=1)


@pytest.mark.slow
def test_the_sheet_shows_every_kind_of_defect_and_every_method(results: Path, category: Category) -> None:
    shared = [
        "--results",
        str(results),
        "--data-root",
        str(category.root.parent),
        "--category",
        category.name,
    ]
    assert sheet.main(shared) == 0
    picture = read_image(sheet.cache_of(results) / f"{category.name}.png")
    lines, columns = len(category.defect_types) + 2, 2 + len(PLANTED)
    side = sheet.TILE + sheet.MARGIN
    assert picture.shape == (sheet.HEADING + lines * side, columns * side, 3)
    assert sheet.main([*shared, "--methods", "energyad"]) == 2


@pytest.mark.parametrize("count", [4, 40, 300])
@pytest.mark.parametrize("seed", range(5))
def test_held_out_of_a_validation_is_a_run_of_images_and_its_neighbours_are_not_fitted_on(
    count: int, seed: int
) -> None:
    good = [Path(str(number)) for number in range(count)]
    fitted, held_out = synthetic_validation.split(good, seed)
    taken, first = [int(path.name) for path in fitted], int(held_out[0].name)
    assert held_out == good[first : first + len(held_out)] and taken
    apart = 0 if count == 4 else 2 if count == 40 else 10
    assert all(place < first - apart or place >= first + len(held_out) + apart for place in taken)
    assert len(taken) >= count - len(held_out) - 2 * apart


@pytest.mark.slow
def test_a_change_is_judged_beside_the_default_once_and_without_test_images(
    category: Category, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tiny_energyad().fit_settings.with_values(
        {
            "energy.pretrain_steps": 60,
            "synthetic_defects.discriminator_iterations": 50,
        }
    )
    monkeypatch.setattr(choices, "FitSettings", lambda: small)
    monkeypatch.setattr(synthetic_validation, "NUM_DEFECTIVE", 12)
    monkeypatch.setattr(choices, "open_anywhere", lambda *_: replace(category, test=()))
    kinds: dict[ModuleType, set[str | None]] = {synthetic_validation: set(), synthetic: set()}

    def recorded(place: ModuleType, image: np.ndarray, **options: Any) -> SyntheticDefect:
        kinds[place].add(options.get("kind"))
        return draw_defect(image, **options)

    for place in kinds:
        monkeypatch.setattr(place, "draw_defect", functools.partial(recorded, place))
    path = tmp_path / "choices.jsonl"
    wanted = [
        "default",
        "knn",
        "heatmap.smoothing=4.0",
        "memory_bank.rerank_banks=0 dxmi.temperature=0",
        "augmentation.photometric_jitter=0",
    ]
    shared = [
        "--categories",
        category.name,
        "--seeds",
        "1",
        "--image-size",
        str(SIZE),
        "--results",
        str(path),
    ]
    assert choices.main([*shared, "--changes", *wanted]) == 0
    found = {row["change"]: row for row in map(json.loads, path.read_text().splitlines())}
    assert found.keys() == set(wanted)
    assert kinds[synthetic_validation] <= set(KINDS) and kinds[synthetic] <= set(KINDS)
    assert min(map(len, kinds.values())) > 1 and not kinds[synthetic_validation] & kinds[synthetic]
    default = found["default"]
    assert default["image_auroc"] == found["heatmap.smoothing=4.0"]["image_auroc"]
    assert default["pixel_auroc"] == found["heatmap.smoothing=4.0"]["pixel_auroc"]
    assert len({row["pixel_auroc"] for row in found.values()}) == 4
    # Of a change to the same: one. A rule has features of the image alone.
    assert len({row["settings_hash"] for row in found.values()}) == 4
    monkeypatch.setattr(choices, "hold_out", None)
    assert choices.main([*shared, "--changes", *wanted]) == 0
    assert len(path.read_text().splitlines()) == 5


@pytest.mark.parametrize(
    "change", ["smoothing", "smoothing=", "smooth=1", "dxmi.tau=0", "seeds.x=1", "energy.latent_dim=0"]
)
def test_a_change_of_what_is_no_setting_is_refused(
    change: str, category: Category, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--data-root", str(category.root.parent), "--categories", category.name]
    assert choices.main([*shared, "--changes", change, "--results", str(tmp_path / "x.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not list(tmp_path.iterdir())
