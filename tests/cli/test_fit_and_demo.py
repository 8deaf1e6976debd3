"""Laws of `energyad fit` and `demo`: where things land, what is refused, nothing is lost."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import DataError
from energyad.images.reading import read_image
from energyad.model.folder import read_manifest
from tests.quick import TINY

from .outcome import Program, is_one_line_error


@pytest.mark.slow
@pytest.mark.usefixtures("quick_fit")
def test_fit_puts_a_model_where_it_says_and_says_what_to_type_next(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    images = demo_category.root / "train" / "good"
    sets = ("--set", "heatmap.smoothing=3", "--set", "dxmi.temperature=0.5")
    outcome = program("fit", "--images", images, "--name", "gasket", "--seed", 3, "--threads", 1, *sets)
    manifest = read_manifest(workdir / "models" / "gasket")
    assert manifest.settings["heatmap"]["smoothing"] == 3 and manifest.settings["dxmi"]["temperature"] == 0.5
    assert (outcome.status, outcome.out) == (0, "")
    assert (manifest.name, manifest.provenance.seed, manifest.input.image_size) == ("gasket", 3, (64, 64))
    assert "models/gasket" in outcome.err and "energyad score IMAGES --model gasket" in outcome.err
    assert "energyad evaluate --synthetic OTHER_GOOD_PARTS --model gasket" in outcome.err
    root = demo_category.root.parent
    named = program(
        "fit", "--category", demo_category.name, "--data-root", root, "--output", "here", "--quiet"
    )
    assert (named.status, named.out, named.err) == (0, "", "")
    assert program("score", images / "000.png", "--model", "here").status in {0, 1}


@pytest.mark.slow
def test_a_budget_of_milliseconds_chooses_the_size_and_says_what_each_takes(
    program: Program, workdir: Path, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TINY.with_values({"input.image_size": "auto", "memory_bank.rerank_banks": 0})
    monkeypatch.setattr("energyad.settings.FitSettings", lambda: settings)
    monkeypatch.setattr(
        "energyad.detector.budget.milliseconds", lambda detector, *_, **__: 0.1 * detector.image_size[0]
    )
    good = ("fit", "--images", demo_category.root / "train" / "good", "--name", "gasket", "--threads", 1)
    outcome = program(*good, "--budget-ms", 20)
    assert outcome.status == 0
    assert "256 × 256 px: 25.6 ms an image, too long" in outcome.err
    assert "192 × 192 px: 19.2 ms an image, within the budget" in outcome.err
    assert read_manifest(workdir / "models" / "gasket").input.image_size == (192, 192)
    assert is_one_line_error(program(*good, "--budget-ms", 20, "--image-size", 256, "-q"), "one of the two")
    ray = program("fit", "--category", "all", "--engine", "ray", "--budget-ms", 20)
    assert is_one_line_error(ray, "--budget-ms")


def test_config_and_a_dry_run_print_settings_that_a_fit_takes_back(program: Program, workdir: Path) -> None:
    options = ("--tiles", "2x3", "--rotation", "on", "--target-frr", "0.1", "--set", "dxmi.beta_end=0.2")
    printed = program("config", *options)
    assert printed.status == 0 and 'rotation = "on"' in printed.out and 'review_rate = "none"' in printed.out
    (workdir / "all.toml").write_text(printed.out, encoding="utf-8")
    assert program("fit", "--dry-run", "--config", "all.toml").out == printed.out
    assert program("config", "--config", "all.toml", "--seed", 7).out == printed.out.replace(
        "seed = 0", "seed = 7"
    )
    (workdir / "part.toml").write_text("[heatmap]\nsmoothing = 2\n", encoding="utf-8")
    part = program("config", "--config", "part.toml", "--set", "heatmap.contrast=1").out
    assert "smoothing = 2.0\n" in part and "contrast = 1.0\n" in part
    assert not list((workdir / "models").glob("all*"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[heatmap]\nsmothing = 2\n", ("did you mean heatmap.smoothing?",)),
        ("[heatmaps]\nsmoothing = 2\n", ("did you mean heatmap.smoothing?",)),
        ("smoothing = 2\n", ("did you mean heatmap.smoothing?",)),
        ("[heatmap]\nsmoothing = -2\n", ("heatmap.smoothing = -2", "a number, at least 0")),
        ("heatmap = 2\n", ("'heatmap'",)),
        ("smoothing 2\n", ("is not TOML",)),
    ],
)
def test_a_settings_file_that_cannot_be_used_is_named_in_one_line(
    text: str, words: tuple[str, ...], program: Program, workdir: Path
) -> None:
    (workdir / "part.toml").write_text(text, encoding="utf-8")
    assert is_one_line_error(program("config", "--config", "part.toml"), "part.toml", *words)
    assert is_one_line_error(program("config", "--config", "absent.toml"), "absent.toml")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_fit")
def test_rotation_is_found_out_or_given(program: Program, workdir: Path, demo_category: Category) -> None:
    images = demo_category.root / "train" / "good"
    flags_by_name = {"auto": [], "on": ["--rotation", "on"], "off": ["--rotation", "off"]}
    for name, flags in flags_by_name.items():
        assert program("fit", "--images", images, "--name", name, "-q", *flags).status == 0
    made = {name: read_manifest(workdir / "models" / name).provenance.num_rotated for name in flags_by_name}
    assert made["on"] > 0 and made["off"] == 0 and made["auto"] == 0  # a bottle's lamps stay where they are
    card = (workdir / "models" / "on" / "README.md").read_text(encoding="utf-8")
    assert f"{made['on']} rotated copies" in card


@pytest.mark.slow
@pytest.mark.usefixtures("quick_fit")
def test_fit_warns_below_eight_images_and_stops_at_a_bad_one_unless_told_to_skip(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    (workdir / "good").mkdir()
    for path in demo_category.train_good[:3]:
        shutil.copy(path, workdir / "good")
    (workdir / "good" / "bad.png").touch()
    stopped = program("fit", "--images", "good", "--quiet")
    assert is_one_line_error(stopped, "bad.png", "--skip-bad")
    assert not (workdir / "models" / "good").exists()
    skipped = program("fit", "--images", "good", "--skip-bad")
    assert skipped.status == 0
    lines = [line for line in skipped.err.splitlines() if line.startswith("warning: ")]
    assert any("bad.png" in line for line in lines) and any("only 3 good images" in line for line in lines)
    assert "UserWarning" not in skipped.err


@pytest.mark.slow
def test_fit_refuses_what_cannot_be_fitted(program: Program, workdir: Path, demo_category: Category) -> None:
    (workdir / "empty").mkdir()
    (workdir / "one").mkdir()
    shutil.copy(demo_category.train_good[0], workdir / "one")
    assert is_one_line_error(program("fit"), "--category", "--images")
    assert is_one_line_error(
        program("fit", "--category", "bottle"),
        "bottle",
        "datasets/MVTecAD",
        "--data-root",
        "--download",
        "demo",
    )
    assert is_one_line_error(program("fit", "--images", "empty", "-q"), "empty", "no image")
    assert is_one_line_error(program("fit", "--images", "one", "-q"), "at least 2")
    assert is_one_line_error(program("fit", "--images", "one", "--name", "../up"), "../up")
    assert is_one_line_error(program("fit", "--images", "one", "--output", "one"), "one", "--output")
    many = demo_category.root / "train" / "good"
    assert is_one_line_error(program("fit", "--images", many, "-q", "--backbone", "resnet81"), "resnet18")
    assert is_one_line_error(program("fit", "--images", many, "--set", "smoothing=8"), "heatmap.smoothing")
    assert is_one_line_error(program("fit", "--images", many, "--rotation", "left"), "auto or on or off")
    weights = program("fit", "--images", many, "-q", "--backbone-weights", "w.safetensors")
    assert is_one_line_error(weights, "w.safetensors")


def test_all_categories_become_one_model_and_none_is_an_error(
    program: Program, workdir: Path, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_one_line_error(
        program("fit", "--category", "all", "--data-root", "nowhere"), "nowhere", "category"
    )
    for name in ("bolt", "nut"):
        shutil.copytree(demo_category.root, workdir / "parts" / name)
    fitted: list[tuple[str, int, Sequence[str] | None]] = []

    def no_fit(
        good_images: Sequence[Path], *, name: str, categories: Sequence[str] | None, **_: object
    ) -> None:
        fitted.append((name, len(good_images), categories))
        raise DataError("enough seen")

    monkeypatch.setattr(AnomalyDetector, "fit", no_fit)
    program("fit", "--category", "all", "--data-root", "parts")
    program("fit", "-c", "bolt", "-c", "nut", "-c", "nut", "--data-root", "parts", "--name", "both")
    program("fit", "-c", "bolt", "--data-root", "parts")
    count = len(demo_category.train_good)
    both = (2 * count, ("bolt",) * count + ("nut",) * count)
    assert fitted == [("unified", *both), ("both", *both), ("bolt", count, None)]


def test_a_fit_that_is_stopped_leaves_the_old_model_whole(
    program: Program, workdir: Path, demo_category: Category, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AnomalyDetector, "fit", stop)
    before = {path: path.read_bytes() for path in sorted((workdir / "models").rglob("*")) if path.is_file()}
    root = demo_category.root.parent
    outcome = program("fit", "--category", demo_category.name, "--data-root", root, "-q")
    assert is_one_line_error(outcome, "stopped")
    assert before == {
        path: path.read_bytes() for path in sorted((workdir / "models").rglob("*")) if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.usefixtures("quick_fit")
def test_demo_leaves_a_model_a_sheet_and_a_page_and_says_that_it_is_synthetic(
    program: Program, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from energyad.data import demo

    small = functools.partial(demo.render_demo, train=8, good=3, per_flaw=2, size=96)
    monkeypatch.setattr("energyad.data.demo.render_demo", small)
    for name in ("WARMUP_ITERATIONS", "ITERATIONS"):
        monkeypatch.setattr(sys.modules["energyad.cli.demo"], name, 20)
    outcome = program("demo", "--threads", 1)
    assert outcome.status == 0
    assert "ynthetic" in outcome.err and "image AUROC" in outcome.out
    page = (workdir / "demo" / "index.html").read_text()
    assert "nothing about real parts" in page and page.count("<figure>") == 15
    assert read_image(workdir / "demo" / "sheet.png").shape[2] == 3
    assert program("models", "demo/models").out.splitlines()[1].endswith("ok")
    assert program("score", "demo/datasets", "--model", "demo/models/synthetic_bottle").status in {0, 1}


@pytest.mark.slow
def test_fits_of_several_categories_on_ray_are_saved_one_by_one_and_failures_are_named(
    program: Program,
    workdir: Path,
    demo_category: Category,
    fitted_detector: AnomalyDetector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitting = pytest.importorskip("energyad.integrations.ray_fitting")
    for name in ("bolt", "nut"):
        shutil.copytree(demo_category.root, workdir / "parts" / name)
    given: dict[str, object] = {}

    def fit_categories(categories: Sequence[Category], **options: object) -> Iterator[object]:
        given.update(options)
        bolt, nut = categories
        yield fitting.CategoryFit(bolt, 1.0, error="its lamps were off")
        yield fitting.CategoryFit(nut, 2.0, fitted_detector.manifest, fitted_detector.contents)

    monkeypatch.setattr(fitting, "fit_categories", fit_categories)
    options = ("--category", "all", "--data-root", "parts", "--engine", "ray")
    outcome = program("fit", *options, "--threads", 3, "--target-frr", "0.02")
    assert outcome.status == 2 and "bolt: its lamps were off" in outcome.err
    assert "1 of 2 categories were not fitted: bolt" in outcome.err.splitlines()[-1]
    assert given["threads"] == 3 and given["address"] is None
    assert read_manifest(workdir / "models" / "nut").calibration == fitted_detector.calibration
    assert not (workdir / "models" / "bolt").exists()
    assert is_one_line_error(program("fit", *options, "--name", "line"), "--name")
    assert is_one_line_error(program("fit", *options[:-1], "dask"), "local or ray")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_fit")
def test_fit_takes_both_rates_and_a_high_one_leaves_no_review(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    images = demo_category.root / "train" / "good"
    assert program("fit", "--images", images, "--name", "coarse", "--target-frr", "0.3").status == 0
    calibration = read_manifest(workdir / "models" / "coarse").calibration
    assert (calibration.false_reject_rate, calibration.review_threshold) == (0.3, None)
    assert calibration.method == "conformal"
    outcome = program("fit", "--images", images, "--name", "x", "--target-frr", "0.3", "--review-frr", "0.1")
    assert is_one_line_error(outcome, "must not be below")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_fit")
def test_a_fit_on_a_labelled_data_set_takes_its_good_parts(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    bad = [item.path for item in demo_category.test if item.is_defective]
    rows = [("image", "label"), *((str(path), "good") for path in demo_category.train_good)]
    rows += [(str(path), "dent") for path in bad]
    (workdir / "gasket.csv").write_text("\n".join(map(",".join, rows)))
    assert program("fit", "--labels", "gasket.csv").status == 0
    manifest = read_manifest(workdir / "models" / "gasket")
    assert manifest.provenance.num_images == len(demo_category.train_good)
    (workdir / "bad.csv").write_text(f"image,label\n{bad[0]},dent\n")
    assert is_one_line_error(program("fit", "--labels", "bad.csv"), "no image is labelled good")
    assert is_one_line_error(program("fit", "--images", ".", "--field", "a"), "--field", "--labels")
