"""Laws of the benchmark of alignment: the category's own images are fitted on and counted, with and without it."""

from __future__ import annotations

import pytest

from benchmarks.station.alignment import measure
from energyad.data.datasets import Category
from tests.quick import TINY


@pytest.mark.slow
def test_rows_are_of_the_category_s_good_and_test_images(demo_category: Category) -> None:
    rows = measure(demo_category.root, copies="shifted", num_train=12, settings=TINY, threads=1, seed=0)
    defective = sum(item.is_defective for item in demo_category.test)
    without, aligned = rows
    assert (without.method, without.train) == (None, 12)
    assert (without.good, without.defective) == (len(demo_category.test) - defective, defective)
    assert aligned.method is not None and 6 <= aligned.train <= 12
    assert (aligned.good, aligned.defective) == (without.good, without.defective)
    assert without.no_part == 0 <= aligned.no_part < len(demo_category.test)
    assert all(row.auroc is not None and 0 <= row.auroc <= 1 for row in rows)
