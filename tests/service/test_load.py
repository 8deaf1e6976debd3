"""Law: asked for more than it can answer, the service says 200 or 429 and nothing else, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.service.load import measure
from energyad.data.datasets import Category


@pytest.mark.slow
def test_more_than_the_capacity_and_an_end_under_load(model_folder: Path, demo_category: Category) -> None:
    images = [item.path for item in demo_category.test[:6]]
    found = measure(model_folder, images, seconds=2, times=4, queue=8, threads=1)
    assert found.ok > 5 and found.refused > 5
    assert found.ok + found.refused == found.sent
    assert (found.errors, found.lost, found.differing) == (0, 0, 0)
    assert found.memory_end_mb - found.memory_mb < 20
    assert (found.unfinished, found.exit_status) == (0, 0)
