"""Laws of the table that says what each change of the defaults changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import provenance
from benchmarks.detection import choices, choices_table
from energyad.settings import FitSettings


def a_row(change: str, seed: int, image: float, pixel: float = 0.9, **other: Any) -> dict[str, Any]:
    base = choices.settings_of(change, FitSettings(seed=seed).with_values({"input.image_size": 256}))
    known = {"change": change, "category": "a", "seed": seed, "settings_hash": choices.hashed(base)}
    place = {"commit": "c" * 40, "modified": False, "date": f"2026-01-0{seed + 1}", "processor": "p"}
    return known | {"image_auroc": image, "pixel_auroc": pixel} | place | other


def lines(rows: list[dict[str, Any]]) -> list[str]:
    return [line for line in choices_table.render(rows).splitlines() if line.startswith("| ")]


def test_a_change_is_compared_with_the_default_seed_by_seed() -> None:
    rows = [a_row("default", 0, 0.8), a_row("default", 1, 0.9), a_row("default", 2, 0.5)]
    rows += [
        a_row("heatmap.smoothing=8", 0, 0.83, 0.89),
        a_row("heatmap.smoothing=8", 1, 0.91, 0.91),
        a_row("knn", 2, 0.55),
    ]
    _, _, default, rule, change = lines(rows)
    assert default == "| default | 0.733 ± 0.208 | 0.900 ± 0.000 | — | 3 | today's |"
    assert change == "| heatmap.smoothing=8 | +2.0 (+1.0 to +3.0) | 0.0 (-1.0 to +1.0) | — | 2 | today's |"
    assert rule == "| knn | +5.0 | 0.0 | — | 1 | today's |"


def test_a_change_is_compared_with_the_default_of_its_own_commit_and_the_newest_counts() -> None:
    rows = [
        a_row("default", 0, 0.5, commit="new", date="2026-02-02"),
        a_row("default", 0, 0.8, commit="old"),
        a_row("heatmap.smoothing=8", 0, 0.83, commit="old"),
        a_row("knn", 0, 0.9, commit="old"),
        a_row("knn", 0, 0.55, commit="new", date="2026-02-03"),
        a_row("augmentation.photometric_jitter=0", 0, 0.9, commit="alone"),
    ]
    _, _, default, rule, change = lines(rows)
    assert default.startswith("| default | 0.500 |")
    assert rule.startswith("| knn | +5.0 |") and change.startswith("| heatmap.smoothing=8 | +3.0 |")
    assert choices_table.render(rows[5:]).startswith("No rows")


def test_changes_of_a_default_of_another_image_size_have_a_table_of_their_own() -> None:
    rows = [a_row("default", 0, 0.8), a_row("knn", 0, 0.7)]
    rows += [a_row("default", 0, 0.9, image_size=384), a_row("knn", 0, 0.85, image_size=384)]
    assert [line.split(" |")[1] for line in lines(rows) if "knn" in line] == [" -5.0", " -10.0"]
    text = choices_table.render(rows)
    assert text.index("384 × 384") < text.index("256 × 256")


def test_a_figure_that_rows_lack_is_left_open() -> None:
    rows = [a_row("default", 0, 0.8, aupro=0.5), a_row("default", 1, 0.8), a_row("knn", 0, 0.8)]
    _, _, default, rule = lines(rows)
    assert default.endswith("| 0.500 | 2 | today's |") and rule.endswith("| — | 1 | today's |")


def test_a_line_says_whether_it_stands_beside_todays_default_and_todays_alone_count() -> None:
    rows = [a_row("default", 0, 0.7, commit="old", settings_hash="old"), a_row("default", 1, 0.8)]
    rows += [a_row(change, 0, 0.71, commit="old") for change in ("knn", "heatmap.smoothing=8")]
    rows += [a_row("heatmap.smoothing=8", 1, 0.82), rows[-1] | {"change": "setting_of_old=1"}]
    _, _, default, rule, change = lines(rows)
    assert default.startswith("| default | 0.800 |") and default.endswith("| 1 | today's |")
    assert rule.startswith("| knn | +1.0 |") and rule.endswith("| 1 | earlier |")
    assert change.startswith("| heatmap.smoothing=8 | +2.0 |") and change.endswith("| 1 | today's |")


def test_a_seed_is_no_setting_that_tells_rows_apart() -> None:
    assert choices.hashed(FitSettings(seed=1)) == choices.hashed(FitSettings(seed=2))
    assert choices.hashed(FitSettings().with_values({"heatmap.smoothing": 1.0})) != choices.hashed(
        FitSettings().with_values({"heatmap.smoothing": 2.0})
    )


def test_the_table_goes_between_its_markers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    provenance.append_row(results, a_row("default", 0, 0.75))
    page.write_text(f"before\n{choices_table.PLACE.start}\n{choices_table.PLACE.end}\nafter\n")
    shared = ["--results", str(results), "--into", str(page)]
    assert [choices_table.main([*shared, *more]) for more in (["--check"], [], ["--check"])] == [1, 0, 0]
    assert "| default | 0.750 |" in page.read_text() and page.read_text().endswith("after\n")
    page.write_text("nothing")
    assert choices_table.main(shared) == 2 and "no markers" in capsys.readouterr().err
