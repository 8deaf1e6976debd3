"""Laws of the detection benchmark's rows and tables: nothing is measured here."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from benchmarks.detection import heatmaps_table, image_sizes, rows, standing, summary, table
from benchmarks.detection.method import side_of
from benchmarks.detection.ours import energyad_method
from benchmarks.detection.rows import Row
from benchmarks.detection.same_features import rule_named
from energyad.data.demo import DEMO_NAME
from energyad.errors import DataError
from energyad.images.input_shape import find_input_shape
from energyad.settings import FitSettings


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


def of_today(method: str, *, image_size: int = 256, **values: object) -> Row:
    """A row of energyad, of a variant or of a rule with the settings that it has today."""
    named = energyad_method if method.startswith("energyad") else rule_named
    found = rows.settings_hash(named(method, image_size=image_size).settings)
    return a_row(method=method, image_size=image_size, settings_hash=found, **values)


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
    few = a_row(shots=4, image_auroc=0.55, settings_hash="old")
    assert rows.current([new, old, tile]) == [new]
    assert rows.current([new, few]) == [few, new]
    text = table.render([old, tile, new, both, few])
    assert "0.1100" not in text
    assert "0.3300" not in text
    (single,) = [line for line in text.splitlines() if line.startswith("| a | 0.2200")]
    assert "0.4400" not in single
    (together,) = [line for line in text.splitlines() if line.startswith("| a | screw")]
    assert together.startswith("| a | screw | 0.4400 | 0.2200 |")
    assert "| a | 0.5500 / 0.5000 |" in text


def test_one_model_for_all_stands_beside_the_same_seeds_of_one_each() -> None:
    both = [a_row(categories=("screw", "tile"), seed=s, image_auroc=0.8) for s in (0, 1)]
    alone = [a_row(seed=s, image_auroc=0.6 + 0.1 * s) for s in range(4)]
    text = table.render([*both, *alone])
    (line,) = [line for line in text.splitlines() if line.startswith("| a | screw | 0.8")]
    assert "| 0.6500 ± 0.0707 |" in line and line.endswith("| 2, 2 |")


def test_the_table_is_put_between_the_markers_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "rows.jsonl"
    rows.append(results, a_row(method="padim"))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.PLACE.start}\n{table.PLACE.end}\nafter\n")
    shared = ["--results", str(results), "--into", str(readme)]
    assert table.main([*shared, "--check"]) == 1
    assert table.main(shared) == 0
    assert table.main([*shared, "--check"]) == 0
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| padim | 0.5000 |" in text
    readme.write_text("no markers")
    assert table.main(shared) == 2
    assert "markers" in capsys.readouterr().err


def test_the_summary_has_a_mean_of_the_methods_that_have_all_categories(tmp_path: Path) -> None:
    results = tmp_path / "rows.jsonl"
    for method, auroc in (("knn", 0.5), ("energyad", 0.7), ("energyad-shared", 0.9)):
        for seed, above in ((0, 0.0), (1, 0.1)):
            rows.append(results, of_today(method, image_auroc=auroc + above, seed=seed))
    for method, auroc in (("knn", 0.6), ("energyad", 0.8)):
        rows.append(
            results, of_today(method, category="casting", image_auroc=auroc, pixel_auroc=None, aupro=None)
        )
    rows.append(results, of_today("knn-whitened", image_auroc=1.0))  # of one category alone
    rows.append(results, of_today("energyad", category=DEMO_NAME))
    rows.append(results, of_today("energyad", image_size=2 * side_of(FitSettings())))
    lines = summary.render(results, spread=False).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| `energyad`", "| `knn`", "| `knn-whitened`"]
    assert "| 0.800 | 0.750 | 0.775 | 0.500 | 0.500 |" in lines[0] and "| 1 and 2 |" in lines[0]
    assert "| — | 1.000 | — | 0.500 | 0.500 |" in lines[2]
    assert summary.render(results).splitlines()[2].count("0.750 ± 0.071") == 1


def test_a_table_has_no_settings_of_before_and_no_method_that_is_gone(tmp_path: Path) -> None:
    results = tmp_path / "rows.jsonl"
    today = [of_today("energyad", image_size=384), of_today("knn-unsmoothed"), a_row(method="patchcore-0.25")]
    gone = [a_row(method=name) for name in ("energyad", "energyad-init", "knn", "energyad-of-old", "other")]
    for row in [*today, *gone]:
        rows.append(results, row)
    assert standing.read(results) == today


def test_a_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows.append(path, a_row())
    assert rows.read(path) == [a_row()]
    with path.open("a") as file:
        file.write(json.dumps({**asdict(a_row()), "extra": 1}) + "\n")
    with pytest.raises(DataError, match=r"line 2: .*extra"):
        rows.read(path)


@pytest.mark.parametrize(
    ("shape", "side"), [((200, 200), 256), ((300, 300), 288), ((480, 640), 320), ((24, 40), 256)]
)
def test_the_side_that_auto_chooses_gives_the_input_that_auto_gives(
    shape: tuple[int, int], side: int
) -> None:
    shapes = [shape] * 4
    assert image_sizes.chosen_side(shapes) == side
    inputs = [find_input_shape(shapes, chosen, tile_overlap=0.25) for chosen in (side, "auto")]
    assert inputs[0] == inputs[1]


def test_the_summary_shows_rows_of_the_chosen_size_as_a_method_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_sizes, "read", lambda: {"screw": 320})
    for size, value in ((256, 0.8), (320, 0.9), (384, 0.7)):
        rows.append(tmp_path / "results.jsonl", of_today("energyad", image_size=size, image_auroc=value))
    text = summary.render(tmp_path / "results.jsonl")
    assert (
        "| `energyad` | 0.800 |" in text and "| `energyad (auto)` | 0.900 |" in text and "0.700" not in text
    )


def test_means_of_few_good_images_are_of_seeds_that_have_every_category() -> None:
    measured = [
        a_row(category=name, categories=(name,), shots=shots, seed=seed, image_auroc=auroc, pixel_auroc=pixel)
        for name, auroc, pixel in (("screw", 0.6, 0.9), ("casting", 0.8, None))
        for shots in (1, 4)
        for seed in (0, 1)
        if (name, shots, seed) != ("casting", 4, 1)
    ]
    text = table.render(measured)
    assert (
        "| a | 0.7000 ± 0.0000 / 0.9000 ± 0.0000 / 0.5000 ± 0.0000 | 0.7000 / 0.9000 / 0.5000 | 2 |" in text
    )


def test_the_table_of_heatmaps_has_every_figure_and_a_mean_where_all_categories_are() -> None:
    measured = [
        a_row(category=name, method=method, aupimo=aupimo)
        for name, method, aupimo in (("screw", "a", 0.2), ("tile", "a", 0.4), ("screw", "b", 0.9))
    ]
    text = heatmaps_table.render([*measured, a_row(aupimo=0.25, date="2026-01-02")])
    assert "| AUPIMO | `a` | 0.250 | 0.400 | 0.325 |" in text
    assert "| AUPIMO | `b` | 0.900 | — | — |" in text
    assert "pixel AP" in text and heatmaps_table.render([]) == "No rows yet."


@pytest.mark.parametrize("method", ["padim", "patchcore-0.01", "mh-patchcore"])
def test_rows_of_every_peer_stand(method: str) -> None:
    assert standing.standing([a_row(method=method)]) == [a_row(method=method)]
