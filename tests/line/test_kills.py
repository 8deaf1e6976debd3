"""A watcher killed at random moments scores, files and delivers every part once; the long form is a benchmark."""

from __future__ import annotations

import pytest

from benchmarks.robustness.watching import LAYOUTS, run_layout

BY_NAME = {layout.name: layout for layout in LAYOUTS}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["stay, slow writers", "move, two watchers, same names", "move, webhook", "move, results removed"]
)
def test_a_watcher_killed_at_random_moments_loses_and_doubles_nothing(name: str) -> None:
    counts = run_layout(BY_NAME[name], files=60, kills=3, seed=3)
    assert counts.is_clean, counts


@pytest.mark.slow
def test_watchers_of_one_server_killed_at_random_moments_lose_and_double_nothing(postgres: str) -> None:
    counts = run_layout(BY_NAME["stay, server, two watchers"], files=60, kills=3, seed=4, server=postgres)
    assert counts.is_clean, counts
