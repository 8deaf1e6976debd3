"""Laws of `energyad evaluate --synthetic`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from energyad.data.datasets import Category

from .outcome import Program, is_one_line_error


@pytest.mark.slow
def test_it_tells_what_is_found_by_kind_and_by_size_and_leaves_nothing_behind(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    good = demo_category.root / "test" / "good"
    before = sorted(workdir.rglob("*"))
    table = program("evaluate", "--synthetic", good, "--per-image", 1)
    assert table.status == 0 and sorted(workdir.rglob("*")) == before
    assert "image AUROC" in table.out and "scratch" in table.out and " px " in table.out
    assert "stand-ins" in table.err
    values = json.loads(program("evaluate", "--synthetic", good, "--per-image", 1, "--json").out)
    assert sum(row["images"] for row in values["sizes"]) == 4
    assert sum(row["images"] for row in values["types"]) == 8


@pytest.mark.slow
def test_with_report_the_images_and_a_page_stay(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    good = demo_category.root / "test" / "good"
    assert program("evaluate", "--synthetic", good, "--per-image", 1, "--report", "out").status == 0
    assert all((workdir / "out" / name).is_file() for name in ("index.html", "sheet.png", "scores.csv"))
    assert len(list((workdir / "out" / "test").rglob("*.png"))) == 8
    assert "stand-ins" in (workdir / "out" / "index.html").read_text()
    assert is_one_line_error(
        program("evaluate", "--synthetic", good, "--report", "out"), "exists already", "choose another"
    )


def test_a_category_or_synthetic_images_are_needed_and_never_both(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    good = demo_category.root / "test" / "good"
    for words in ((), ("--synthetic",), (good,), ("--synthetic", good, "--category", demo_category.name)):
        assert is_one_line_error(program("evaluate", *words), "give either --category", "--synthetic")
