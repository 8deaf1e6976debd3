"""Laws of the table that tells what DxMI gives: nothing is measured here."""

from __future__ import annotations

import statistics

import pytest

from benchmarks.detection import dxmi_table
from benchmarks.detection.rows import Row

from .test_detection_rows import of_today

AHEAD = {"screw": (1.0, 3.0), "tile": (2.0, -1.0)}  # points, of two seeds


def measured(game: str = "energyad", **others: object) -> list[Row]:
    """A game and its start, ahead by so much on either category; seeds differ by more than that."""
    found = []
    for category, points in AHEAD.items():
        for seed, ahead in enumerate(points):
            shared = {"category": category, "categories": (category,), "seed": seed} | others
            start = 0.7 + 0.1 * seed
            found.append(of_today(f"{game}-init", image_auroc=start, **shared))
            found.append(of_today(game, image_auroc=start + ahead / 100, **shared))
    return found


def cells(text: str, line: str) -> list[str]:
    (found,) = [each for each in text.splitlines() if each.startswith(line)]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_a_game_is_told_from_its_start_seed_by_seed() -> None:
    *_, screw, tile, whole, seeds = cells(
        dxmi_table.render(measured()), "| energyad | energyad-init | all | image AUROC |"
    )
    assert screw == f"**+2.00 ± {statistics.stdev(AHEAD['screw']):.2f}**"  # not the seeds' own spread
    assert tile == f"+0.50 ± {statistics.stdev(AHEAD['tile']):.2f}"  # seeds disagree
    assert whole == f"**+1.25 ± {statistics.stdev([1.5, 1.0]):.2f}**"
    assert seeds == "2"


def test_it_stands_beside_its_own_start_with_as_many_images_at_one_size() -> None:
    rows = [*measured(), *measured("energyad-brief"), *measured(shots=8), *measured(image_size=384)]
    rows += [of_today("energyad-scratch", seed=seed) for seed in range(3)]  # its start was not measured
    rows += [of_today("knn", seed=seed) for seed in range(3)]
    text = dxmi_table.render(rows)
    small, large = text.split("384 × 384 pixels:")
    for name in ("energyad", "energyad-brief"):
        assert cells(small, f"| {name} | {name}-init | all | AUPRO |")[4] == "+0.00 ± 0.00"
    assert cells(small, "| energyad | energyad-init | 8 | image AUROC |")[4].startswith("**+2.00")
    assert cells(large, "| energyad | energyad-init | all | image AUROC |")[4].startswith("**+2.00")
    assert "scratch" not in text and "knn" not in text and "tau0" not in text


def test_one_model_for_all_and_rendered_parts_are_no_evidence() -> None:
    unified = measured(categories=("screw", "tile"))
    rendered = measured(category="synthetic_bottle", categories=("synthetic_bottle",))
    assert dxmi_table.render([*unified, *rendered]) == "No rows yet."


@pytest.mark.parametrize("missing", ["screw", "tile"])
def test_without_one_category_there_is_no_mean(missing: str) -> None:
    rows = [row for row in measured() if row.category != missing]
    rows += [of_today("knn", category=missing)]
    *_, screw, tile, whole, _ = cells(
        dxmi_table.render(rows), "| energyad | energyad-init | all | image AUROC |"
    )
    assert whole == "—" and (screw, tile)[missing == "tile"] == "—"
