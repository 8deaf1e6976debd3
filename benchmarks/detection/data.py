"""Where a benchmark finds its categories."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from energyad.data.datasets import Category, find_data_root, open_category
from energyad.data.demo import DEMO_NAME, render_demo

DEMO_ROOT = Path(tempfile.gettempdir()) / "energyad-benchmark-demo"


def open_anywhere(name: str, data_roots: Sequence[Path] | None) -> Category:
    """The category from the first root that has it; the synthetic demo category is rendered where none has.

    Raises DataError, saying what is there instead.
    """
    roots = list(data_roots or [find_data_root()])
    for root in roots:
        if (root / name).is_dir():
            return open_category(name, data_root=root)
    if name == DEMO_NAME:
        return render_demo(DEMO_ROOT)
    return open_category(name, data_root=roots[-1])
