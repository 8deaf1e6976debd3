"""Laws of the pictures: one energy has one colour, cold is good, an overlay lies on its own pixels, a page is whole."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.evaluation.evaluate import Evaluation
from energyad.images.reading import read_image
from energyad.line.journal import JournalLine
from energyad.report import Report, html_page, of_category, of_images, of_results, write_report
from energyad.report.overlays import ColourScale, colour_bar, overlay, overlay_places
from energyad.report.plots import histogram
from energyad.report.sheet import choose, picture_sheet
from energyad.scoring.results import scored_result

SCALE = ColourScale(threshold=2.0)


def is_cold(rgb: np.ndarray) -> np.ndarray:
    """More blue than red."""
    return rgb[..., 2].astype(int) > rgb[..., 0].astype(int)


def test_one_energy_has_one_colour_whatever_else_is_in_the_image() -> None:
    grey = np.full((32, 32, 3), 120, np.uint8)
    calm, wild = np.full((32, 32), 0.7, np.float32), np.full((32, 32), 0.7, np.float32)
    wild[20:, 20:] = 40.0
    np.testing.assert_array_equal(overlay(grey, calm, SCALE)[:15, :15], overlay(grey, wild, SCALE)[:15, :15])


def test_colours_are_cold_up_to_the_threshold_and_warm_above_it() -> None:
    energies = np.linspace(0, 8, 401, dtype=np.float32)
    np.testing.assert_array_equal(is_cold(SCALE.colours(energies)), energies <= 2.0)


def test_places_on_the_scale_rise_with_the_energy_and_end_at_its_top() -> None:
    places = SCALE.positions(np.linspace(0, 8, 401, dtype=np.float32))
    assert (np.diff(places) >= 0).all()
    assert (places[0], places[-1]) == (0.0, 1.0)
    assert SCALE.positions(np.array([SCALE.top]))[0] == 1.0


def test_a_good_part_looks_cold_and_a_defect_hot(
    fitted_detector: AnomalyDetector, demo_category: Category
) -> None:
    scale = ColourScale(fitted_detector.threshold)
    grey = np.full((128, 128, 3), 128, np.uint8)
    for item in demo_category.test:
        prediction = fitted_detector.score(item.path)
        warm = ~is_cold(overlay(grey, prediction.heatmap, scale))
        assert bool(warm.any()) == prediction.is_anomalous


def test_a_line_runs_around_what_is_above_the_threshold_and_nowhere_else() -> None:
    dark = np.zeros((64, 64, 3), np.uint8)
    heatmap = np.zeros((64, 64), np.float32)
    heatmap[20:30, 40:50] = 3.0
    white = (overlay(dark, heatmap, SCALE) == 255).all(axis=2)
    rows, columns = np.nonzero(white)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 29, 40, 49)
    assert not (overlay(dark, np.zeros_like(heatmap), SCALE) == 255).all(axis=2).any()


@pytest.mark.parametrize("shape", [(40, 90), (300, 7), (1, 1)])
def test_an_overlay_has_its_images_pixels(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    assert overlay(image, np.ones(shape, np.float32), SCALE).shape == image.shape
    assert (image == 0).all()


def test_the_bar_shows_the_whole_scale() -> None:
    bar = colour_bar(SCALE, length=101, thickness=3)
    assert bar.shape == (3, 101, 3)
    np.testing.assert_array_equal(bar[0, [0, 100]], SCALE.colours(np.array([0.0, SCALE.top])))


def test_overlays_of_equal_names_from_different_folders_do_not_meet() -> None:
    paths = [Path(name) for name in ("a/000.png", "b/000.png", "b/000.bmp", "b/c/000.png", "b/000.bmp.png")]
    places = overlay_places(paths, Path("out"))
    assert len(set(places.values())) == len(paths)
    assert places[Path("a/000.png")] == Path("out/a/000.png")
    assert places[Path("b/000.bmp")] == Path("out/b/000.bmp.png")
    assert all(place.suffix == ".png" and place.is_relative_to("out") for place in places.values())


def test_an_overlay_never_leads_out_of_its_folder() -> None:
    paths = [Path("../x/1.png"), Path("/tmp/2.png"), Path("y/../../z/3.png")]
    assert all(".." not in place.parts for place in overlay_places(paths, Path("out")).values())
    assert overlay_places([Path("deep/down/1.jpg")], Path("out")) == {
        Path("deep/down/1.jpg"): Path("out/1.png")
    }


def test_examples_are_the_highest_and_the_lowest_of_each_type(evaluation: Evaluation) -> None:
    chosen = dict(choose(evaluation, per_type=2))
    assert next(iter(chosen)) == "good"
    for defect_type, items in chosen.items():
        scores = [item.score for item in evaluation.items if item.defect_type == defect_type]
        assert [item.score for item in items] == [max(scores), min(scores)]


class Reader(HTMLParser):
    """Collects what a page would fetch, and checks that its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def labelled(fitted_detector: AnomalyDetector, demo_category: Category, evaluation: Evaluation) -> Report:
    return of_category(fitted_detector, evaluation)


@pytest.fixture(scope="module")
def saved(model_folder: Path) -> AnomalyDetector:
    return AnomalyDetector.load(model_folder, threads=1)


def line_of(detector: AnomalyDetector, path: Path) -> JournalLine:
    result = scored_result(detector.score(path), image=str(path), model=detector.reference)
    return JournalLine(**dict(result))


def test_a_page_fetches_nothing_and_escapes_what_it_is_told(labelled: Report) -> None:
    page = html_page(labelled, title="<script>alert(1)</script>", note="a & b")
    reader = parsed(page)
    assert len(reader.sources) > 20
    assert all(source.startswith("data:image/") for source in reader.sources)
    assert (
        "<script" not in page
        and "a &amp; b" in page
        and "//" not in page.replace("base64,//", "").split("<h2>")[0]
    )
    assert "default-src 'none'; img-src data:" in page


def test_a_labelled_page_has_every_image_with_its_mask_and_a_row_for_each_type(
    labelled: Report, evaluation: Evaluation, demo_category: Category
) -> None:
    page = html_page(labelled, title="t")
    assert page.count("<figcaption>") == len(demo_category.test)
    assert page.count('alt="mask"') == sum(item.is_defective for item in demo_category.test)
    for row in evaluation.types:
        assert f"<td>{row.defect_type}</td><td>{row.images}</td>" in page
    for part in ("Calibration", "Drift", "Model card", f"threshold {evaluation.threshold:.3g}"):
        assert part in page


def test_images_are_ranked_and_those_that_cannot_be_read_come_last_with_the_reason(
    fitted_detector: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    (tmp_path / "zero.png").touch()
    report = of_images(fitted_detector, [tmp_path / "zero.png", *(item.path for item in demo_category.test)])
    scores = [image.result.score for image in report.images]
    assert scores[-1] is None and scores[:-1] == sorted(scores[:-1], reverse=True)  # type: ignore[type-var]
    assert "zero.png · unreadable: the file is empty" in html_page(report, title="t")


def test_a_page_shows_the_health_of_each_training(labelled: Report) -> None:
    page = html_page(labelled, title="t")
    assert labelled.manifest.training_health
    assert all(f"{health.classifier_auroc:.3f}" in page for health in labelled.manifest.training_health)


def test_results_are_shown_as_they_are_also_where_their_images_are_gone(
    saved: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    lines = [line_of(saved, item.path) for item in demo_category.test]
    told = {"image": "gone.png", "score": 1e6, "verdict": "ng", "category": "<bolt>"}
    gone = lines[0].model_copy(update=told)
    report = of_results([*lines, gone], saved.manifest, source=tmp_path / "r.jsonl")
    page = html_page(report, title="t")
    parsed(page)
    assert report.images[0].result.image == "gone.png"
    assert page.count("taken for") == page.count("taken for &lt;bolt&gt;") == 1
    assert page.count("image not at hand") == 1 and page.count('alt="regions"') == len(lines)


@pytest.mark.slow
def test_a_page_of_a_thousand_images_is_small_and_opens_fifty(
    saved: AnomalyDetector, demo_category: Category, tmp_path: Path
) -> None:
    lines = [line_of(saved, item.path) for item in demo_category.test] * 70
    report = of_results(lines[:1100], saved.manifest, source=tmp_path / "r.jsonl")
    page = html_page(report, title="t")
    assert len(page) < 20e6
    assert page.count("<figcaption>") == 1100
    assert (page.count("<details"), page.count("<details open")) == (22, 1)
    assert page.count('loading="lazy" decoding="async"') == 2 * 1000


@pytest.mark.parametrize("scores", [[], [1.0], [1e-9, 1e9], [0.5] * 50])
def test_bars_of_a_histogram_count_every_image_and_none_lies_across_the_threshold(
    fitted_detector: AnomalyDetector, scores: list[float]
) -> None:
    calibration = fitted_detector.calibration
    plot = histogram([*scores, calibration.threshold, 1.01 * calibration.threshold], calibration)
    parsed(plot)
    kinds = re.findall(r'class="bar( over)?".*?<title>(\d+) images', plot)
    over = sum(int(count) for kind, count in kinds if kind)
    assert sum(int(count) for _, count in kinds) == len(scores) + 2
    assert over == 1 + sum(score > calibration.threshold for score in scores)


def test_a_report_is_a_page_a_sheet_and_scores(
    fitted_detector: AnomalyDetector, evaluation: Evaluation, tmp_path: Path
) -> None:
    write_report(tmp_path, fitted_detector, evaluation, title="synthetic")
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "sheet.png", "scores.csv"}
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == len(evaluation.items) + 1
    sheet = picture_sheet(fitted_detector, evaluation, title="synthetic")
    np.testing.assert_array_equal(read_image(tmp_path / "sheet.png"), sheet)
