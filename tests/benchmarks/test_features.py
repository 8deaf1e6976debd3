"""The table of features: what a search and a cell mean."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.features.probing import ABSENT, UNCLEAR, search
from benchmarks.features.rows import FEATURES, TOOLS
from benchmarks.features.table import tables


@pytest.mark.parametrize("tool", TOOLS)
def test_each_feature_of_a_tool_has_a_probe_or_words_to_search_for_or_a_reason(tool: str) -> None:
    module = importlib.import_module(f"benchmarks.features.tools.{tool}")
    for feature in FEATURES:
        ways = [hasattr(module, feature), feature in module.ABSENT, feature in module.NOT_TRIED]
        assert sum(ways) == 1, feature


def test_a_search_finds_names_of_modules_classes_and_functions_and_no_others() -> None:
    assert search("benchmarks", r"features/probing\.py$") == UNCLEAR
    assert search("benchmarks", r"probing\.py:names_in$") == UNCLEAR
    assert search("benchmarks", r"no_name_is_like_" + "this") == ABSENT


def test_a_cell_is_the_newest_row(tmp_path: Path) -> None:
    row = {"tool": "pyod", "version": "1", "feature": "fit", "said": "broken", "answer": "failed"}
    rows = [row | {"feature": feature} for feature in FEATURES]
    rows += [row | {"answer": "yes"}, row | {"feature": "onnx", "answer": "not tried", "said": "no time"}]
    rows.append(row | {"tool": "imgad"})  # others were not run yet
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = tables(tmp_path)
    assert "| feature | pyod 1 |" in text and "| fits on good images alone, on a CPU | yes |" in text
    assert "- pyod, exports to ONNX: not tried, no time." in text
