"""Laws of the detection benchmark, on a small rendered category."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from benchmarks.detection import __main__ as command
from benchmarks.detection import rows, settle, sheet, table
from benchmarks.detection.judge import judge, read_masks
from benchmarks.detection.measure import Cell, draw_good, measure
from benchmarks.detection.method import Fitted, Method, read_batches
from benchmarks.detection.methods import open_method
from benchmarks.detection.ours import CHANGES, Energyad, changed, energyad_method
from benchmarks.detection.peers import write_timm_folder
from benchmarks.detection.rows import Row
from benchmarks.detection.same_features import FeatureRule, greedy_coreset, nearest_distance
from energyad import metrics
from energyad.datasets import Category
from energyad.demo import render_demo
from energyad.errors import DataError, SettingsError
from energyad.features import load_extractor
from energyad.images import read_image
from energyad.runtimes import RawScores
from energyad.settings import FitSettings

SIZE = 96
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
    """Rows of four methods, written by the command."""
    path = tmp_path_factory.mktemp("results") / "rows.jsonl"
    assert run(category, path, "--methods", *PLANTED) == 0
    return path


def run(category: Category, path: Path, *options: str) -> int:
    shared = ["--data-root", str(category.root.parent), "--categories", category.name]
    return command.main(
        [*shared, "--seeds", "0", "--image-size", str(SIZE), "--results", str(path), *options]
    )


def tiny_energyad() -> Energyad:
    dxmi = replace(FitSettings().dxmi, batch_size=32, hidden_widths=(16,))
    small = {"num_latents": 24, "energy_width": 32, "bottleneck": 8, "warmup_iterations": 300}
    return Energyad(FitSettings(image_size=SIZE, iterations=3, dxmi=dxmi, **small))  # type: ignore[arg-type]


def a_row(**values: object) -> Row:
    plain = dict.fromkeys((field.name for field in fields(Row)), 0.5) | {
        "method": "a",
        "category": "screw",
        "categories": ("screw",),
        "shots": None,
        "seed": 0,
        "image_size": 256,
        "settings_hash": "one",
        "commit": "abcdef0123",
        "modified": False,
        "date": "2026-01-01",
        "versions": {"torch": "2.6"},
        "processor": "some",
        "threads": 1,
        "num_test": 7,
        "settings": {},
    }
    return Row(**{**plain, **values})  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    "name", ["knn", "knn-unsmoothed", "knn-whitened", "mahalanobis", "padim", "patchcore-0.1"]
)
def test_a_plainly_planted_outlier_scores_highest_and_where_it_is(name: str, category: Category) -> None:
    check_planted_outlier(open_method(name, image_size=SIZE), category)


def test_energyad_has_the_same_sign(category: Category) -> None:
    check_planted_outlier(tiny_energyad(), category)


def check_planted_outlier(method: Method, category: Category) -> None:
    fitted = method.fit(category.train_good[:6], seed=0, threads=1)
    (good,) = read_batches(category.train_good[6:8], SIZE)
    planted = good[:1].copy()
    planted[:, 40:60, 30:50] = (255, 0, 255)
    raw = fitted.score(np.concatenate([good, planted]))
    assert raw.heatmap.shape == (3, SIZE, SIZE)
    assert raw.score.argmax() == 2
    place = np.s_[40:60, 30:50]
    assert raw.heatmap[2][place].mean() > 1.3 * raw.heatmap[2].mean()
    assert raw.heatmap[2][place].mean() > 1.3 * raw.heatmap[0][place].mean()


def test_a_seed_gives_the_same_peer_whatever_was_drawn_before(category: Category) -> None:
    (pixels,) = read_batches(category.train_good[4:5], SIZE)
    heatmaps = []
    for seed in (5, 5, 6):
        fitted = open_method("patchcore-0.1", image_size=SIZE).fit(
            category.train_good[:3], seed=seed, threads=1
        )
        heatmaps.append(fitted.score(pixels).heatmap)
        torch.rand(1), np.random.rand()  # anomalib draws from the global generators
    np.testing.assert_array_equal(heatmaps[0], heatmaps[1])
    assert (heatmaps[0] != heatmaps[2]).any()


def test_peers_get_the_weights_that_energyad_has(tmp_path: Path) -> None:
    weights = write_timm_folder(tmp_path, SIZE)
    written = safetensors.torch.load_file(tmp_path / "model.safetensors")
    own = load_extractor("tf_efficientnet_lite0", image_size=SIZE).backbone.state_dict()
    assert weights.mean == (0.5, 0.5, 0.5)
    for key, value in own.items():
        torch.testing.assert_close(written[key], value, rtol=0, atol=0)


def test_a_coreset_point_is_the_farthest_from_those_before() -> None:
    generator = torch.Generator().manual_seed(1)
    clusters = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]])
    points = torch.cat([c + torch.randn(100, 2, generator=generator) for c in clusters])
    chosen = greedy_coreset(points, 4, generator)
    assert sorted((chosen // 100).tolist()) == [0, 1, 2, 3]
    assert len(set(greedy_coreset(points, 1000, generator).tolist())) == 400


def test_nearest_distance_is_exact() -> None:
    generator = torch.Generator().manual_seed(2)
    queries, bank = torch.randn(50, 8, generator=generator), torch.randn(30, 8, generator=generator)
    torch.testing.assert_close(
        nearest_distance(queries, bank), torch.cdist(queries, bank).amin(dim=1), atol=1e-4, rtol=1e-4
    )


def test_opponents_keep_their_smoothing_whatever_ours_is() -> None:
    for name in ("knn", "knn-whitened", "mahalanobis"):
        assert FeatureRule(name, FitSettings(smoothing=0.0)).settings["smoothing"] == 4
        assert FeatureRule(f"{name}-unsmoothed", FitSettings(smoothing=4.0)).settings["smoothing"] == 0


def test_ablations_change_one_thing_each() -> None:
    base = energyad_method("energyad", image_size=SIZE).fit_settings
    assert base == FitSettings(image_size=SIZE)
    assert energyad_method("energyad-init", image_size=SIZE).fit_settings == replace(base, iterations=0)
    assert energyad_method("energyad-tau0", image_size=SIZE).fit_settings.dxmi.temperature == 0
    for changes in CHANGES.values():
        assert set(changes) <= set(base.to_dict())
    dxmi = changed(base, {"dxmi": {"temperature": 0.0}}).dxmi
    assert replace(dxmi, temperature=base.dxmi.temperature) == base.dxmi


def test_the_seed_is_no_setting_and_every_setting_counts() -> None:
    method = tiny_energyad()
    other = Energyad(replace(method.fit_settings, seed=7))
    longer = Energyad(replace(method.fit_settings, iterations=4))
    assert rows.settings_hash(method.settings) == rows.settings_hash(other.settings)
    assert rows.settings_hash(method.settings) != rows.settings_hash(longer.settings)


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
        return Fitted(lambda p: RawScores(p.mean((1, 2, 3)), p.mean(3).astype(np.float32)), 1)


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
    masks = np.stack(read_masks(category, SIZE))
    assert [bool(mask.any()) for mask in masks] == [item.is_defective for item in category.test]
    heatmaps = (masks + np.random.default_rng(0).uniform(0, 0.5, masks.shape)).astype(np.float32)
    best = judge(category, heatmaps.max((1, 2)), heatmaps)
    assert (best.image_auroc, best.image_auroc_low, best.best_f1) == pytest.approx((1, 1, 1))
    assert best.pixel_auroc == pytest.approx(1)
    assert best.aupro == pytest.approx(1)
    worst = judge(category, -heatmaps.max((1, 2)), -heatmaps)
    assert worst.image_auroc == 0
    assert worst.pixel_auroc == pytest.approx(0)


def test_a_category_without_masks_has_no_pixel_figures(category: Category) -> None:
    items = tuple(replace(item, mask=None) for item in category.test)
    heatmaps = np.random.default_rng(0).random((len(items), SIZE, SIZE), dtype=np.float32)
    quality = judge(replace(category, test=items), heatmaps.max((1, 2)), heatmaps)
    assert (quality.pixel_auroc, quality.aupro) == (None, None)
    good = tuple(item for item in category.test if not item.is_defective)
    with pytest.raises(DataError, match="test/good"):
        measure(counting_cell(replace(category, test=good)), threads=1)


def test_the_table_comes_from_rows_alone() -> None:
    measured = [a_row(seed=s, image_auroc=0.9 + 0.01 * s) for s in range(3)]
    measured += [
        a_row(category="tile", categories=("tile",), image_auroc=0.7),
        a_row(method="b", image_auroc=0.95),
    ]
    text = table.render(measured)
    assert "0.9100 ± 0.0100" in text
    assert "| a | 0.8000 | 0.5000 | 0.5000 | 1 |" in text  # seed 0 alone has both categories
    assert text.index("| b |") < text.index("| a |")
    assert table.render([]) == "No rows yet."


def test_a_table_never_mixes_settings_modes_or_sizes() -> None:
    old, new = a_row(settings_hash="old", image_auroc=0.11), a_row(date="2026-02-01", image_auroc=0.22)
    tile = a_row(category="tile", categories=("tile",), settings_hash="old", image_auroc=0.33)
    both = a_row(categories=("screw", "tile"), date="2026-03-01", image_auroc=0.44)
    few = a_row(shots=4, image_auroc=0.55)
    assert rows.current([new, old, tile]) == [new]
    text = table.render([old, tile, new, both, few])
    assert "0.1100" not in text
    assert "0.3300" not in text
    (single,) = [line for line in text.splitlines() if line.startswith("| a | 0.2200")]
    assert "0.4400" not in single
    (together,) = [line for line in text.splitlines() if line.startswith("| a | screw")]
    assert together.startswith("| a | screw | 0.4400 | 0.2200 |")
    assert "| a | 0.5500 / 0.5000 |" in text


def test_the_table_is_put_between_the_markers_and_checked(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.START}\n{table.END}\nafter\n")
    shared = ["--results", str(results), "--into", str(readme)]
    assert table.main([*shared, "--check"]) == 1
    assert table.main(shared) == 0
    assert table.main([*shared, "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert all(f"| {name} |" in text for name in PLANTED)
    readme.write_text("no markers")
    assert table.main(shared) == 2
    assert "markers" in capsys.readouterr().err


def test_the_readme_has_the_table_of_the_committed_rows() -> None:
    readme = Path(table.__file__).with_name("README.md")
    assert table.main(["--into", str(readme), "--check"]) == 0


def test_a_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows.append(path, a_row())
    assert rows.read(path) == [a_row()]
    with path.open("a") as file:
        file.write(json.dumps({**asdict(a_row()), "extra": 1}) + "\n")
    with pytest.raises(DataError, match=r"line 2: .*extra"):
        rows.read(path)


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


def test_settling_is_judged_on_good_images_held_out_of_training(category: Category, tmp_path: Path) -> None:
    method = tiny_energyad()
    without_test = replace(category, test=())
    found = list(settle.settle(without_test, method.fit_settings, iterations=4, every=2, threads=1))
    assert [row["iteration"] for row in found] == [0, 2, 4]
    assert all(0 <= row["image_auroc"] <= 1 and row["pixel_auroc"] > 0.5 for row in found)
    fitted, held_out = settle.split(category.train_good, seed=0)
    assert not set(fitted) & set(held_out)
    settle.draw(
        [{"category": "demo", "seed": 0, "settings_hash": "0" * 12, **row} for row in found],
        tmp_path / "x.png",
    )
    assert (tmp_path / "x.png").stat().st_size > 5000
