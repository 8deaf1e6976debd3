"""The direction of imports: rooms import only what they stand on, and no modules import each other in a circle."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from tests import ROOT


def test_rooms_import_only_what_they_stand_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports inside functions count; those for type checkers alone do not."""
    graph = grimp.build_graph("energyad", exclude_type_checking_imports=True, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError with the circle
