"""One probe: `python -m benchmarks.features.probing TOOL FEATURE`, run by the interpreter that has the tool.

The status is 0 where the feature is there and worked, 3 where the package has nothing of that name, 4 where it has and
somebody must look, and another where something failed. Images of a rendered part are in `part/` of the current folder,
in the layout of MVTec AD.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from benchmarks.features.rows import TOOLS

ABSENT: Final = 3
UNCLEAR: Final = 4
PART: Final = Path("part")


def good() -> list[Path]:
    """Images of good parts to fit on."""
    return sorted((PART / "train" / "good").glob("*.png"))


def tested(kind: str = "*") -> list[Path]:
    """Test images: of good parts, of one kind, or all."""
    return sorted((PART / "test").glob(f"{kind}/*.png"))


def masks() -> list[Path]:
    """Masks, as many as defects."""
    return sorted((PART / "ground_truth").glob("*/*.png"))


def names_in(package: str) -> Iterator[str]:
    """Yield the names of all modules, classes, functions and methods of an installed package, without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed")
    root = Path(spec.submodule_search_locations[0])
    for path in sorted(root.rglob("*.py")):
        yield path.relative_to(root).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(root).as_posix()}:{node.name}"


def search(package: str, words: str) -> int:
    """Look for words in a package's names; returns the status."""
    found = [name for name in names_in(package) if re.search(words, name, re.IGNORECASE)]
    print(*found[:20], sep="\n")
    return UNCLEAR if found else ABSENT


def forbid(*names: str) -> None:
    """Let imports of these packages fail from now on, as where they are not installed."""

    class Forbidden(MetaPathFinder):
        def find_spec(self, fullname: str, *_: Any) -> None:
            if fullname.partition(".")[0] in names:
                raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

    for module in [module for module in sys.modules if module.partition(".")[0] in names]:
        del sys.modules[module]
    sys.meta_path.insert(0, Forbidden())


def main() -> int:
    """Run a probe; returns the status."""
    tool, feature = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.features.tools.{tool}")
    if feature in module.ABSENT:
        return search(TOOLS[tool], module.ABSENT[feature])
    getattr(module, feature)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
