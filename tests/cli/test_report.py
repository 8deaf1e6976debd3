"""Laws of `energyad report`: a page from results, from images or from labels, and one clear error for anything else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from energyad.data.datasets import Category

from .outcome import Program, is_one_line_error


@pytest.mark.slow
def test_a_page_is_made_of_results_of_images_and_of_a_category(
    program: Program, workdir: Path, demo_category: Category
) -> None:
    shutil.copytree(demo_category.root / "test" / "chip", workdir / "chips")
    (workdir / "results.jsonl").write_text(program("score", "chips", "--json", "--no-csv").out)
    root = ("--data-root", demo_category.root.parent)
    for number, source in enumerate(
        (("results.jsonl",), ("chips",), ("--category", demo_category.name, *root))
    ):
        outcome = program("report", *source, "--out", f"{number}.html")
        page = (workdir / f"{number}.html").read_text()
        assert (outcome.status, outcome.out) == (0, "")
        assert f"{number}.html" in outcome.err and page.count("<figcaption>") in {2, len(demo_category.test)}
        assert ("image AUROC" in page) == (number == 2)


def test_anything_else_is_one_clear_error(program: Program, workdir: Path) -> None:
    assert is_one_line_error(program("report"), "--category")
    assert is_one_line_error(program("report", "x", "--category", "y"), "--category")
    assert is_one_line_error(program("report", "nowhere"), "nowhere")
    (workdir / "notes.txt").write_text("none")
    (workdir / "empty.jsonl").touch()
    assert is_one_line_error(program("report", "empty.jsonl"), "empty.jsonl", "no results")
    assert is_one_line_error(program("report", "notes.txt"), "notes.txt, line 1")
