"""The direction of the house: a module imports only what stands before it in this list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import energyad

ROOT = Path(energyad.__file__).parent
ORDER = (
    "errors", "progress", "files", "pipeline", "image_files", "decoding", "images", "augmentation", "tiling",
    "datasets", "defect_kinds", "defects", "demo", "stages", "backbones", "grids", "features", "latents", "coreset",
    "energy", "closer_look", "discriminator", "dxmi", "experts", "calibration", "settings", "overrides", "training",
    "scorer", "runtimes", "regions", "metrics", "manifest", "roi", "observation", "drift", "artifact", "prediction",
    "results", "detector", "features_store", "extraction", "frozen", "copies", "planted", "provenance", "card",
    "recalibration", "heads", "scales", "category_fit", "fitting", "assembly", "exports", "inspection", "journal",
    "followed", "watch", "webhook", "evaluation", "rehearsal", "overlays", "sheet", "page_style", "report",
    "service", "cli",
)  # fmt: skip
FREE = {"__init__", "__main__"}


def home(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports when it is imported itself: not for types, not inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == "energyad":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("energyad."):
            found.add(home(str(node.module)))
        elif isinstance(node, ast.Import):
            found |= {home(alias.name) for alias in node.names if alias.name.startswith("energyad.")}
    return found


FILES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0][:-3] not in FREE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_stands_to_its_left(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert own in ORDER, f"{own} has no place in the house yet"
    right = {module for module in imports(path) if ORDER.index(module) > ORDER.index(own)}
    assert not right


def test_dxmi_knows_nothing_of_images() -> None:
    allowed = {"errors", "energy", "dxmi"}
    for path in (ROOT / "dxmi").glob("*.py"):
        assert imports(path) <= allowed, path.name


def test_no_module_is_too_long_to_read() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 250} == {}
