"""What the documentation tells a reader to type works, as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import ROOT

from .blocks import blocks_of, session

PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if blocks_of(path))
MAX_NOT_RUN = 26
"""Blocks that are marked as not run. Raise it only for what cannot be run here."""


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT / "docs").as_posix())
@pytest.mark.usefixtures("workspace")
def test_blocks_of_a_page_run_in_order(page: Path) -> None:
    with session() as running:
        for block in blocks_of(page):
            if block.not_run is None:
                running.run(block)


def test_blocks_that_are_not_run_have_a_reason_and_are_few() -> None:
    reasons = [block.not_run for page in PAGES for block in blocks_of(page) if block.not_run is not None]
    assert all(reasons)
    assert len(reasons) <= MAX_NOT_RUN, reasons
