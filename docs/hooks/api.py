"""One page of the API reference for each room of the package."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "energyad"


def navigation() -> list[dict[str, str]]:
    """Titles and pages, in the order of the alphabet."""
    return [{f"energyad.{room}": f"reference/api/{room}.md"} for room in rooms()]


def pages() -> dict[str, str | bytes]:
    """Path and text of each page."""
    return {f"reference/api/{room}.md": _page(room, modules) for room, modules in rooms().items()}


def rooms() -> dict[str, list[str]]:
    """Rooms (packages, and modules that stand alone) with the dotted names of their modules."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] in ("__init__", "__main__"):
            parts = parts[:-1]
        if parts and not any(part.startswith("_") for part in parts):
            found.setdefault(parts[0], []).append(".".join(["energyad", *parts]))
    return {room: found[room] for room in sorted(found)}


def _page(room: str, modules: list[str]) -> str:
    title = f"# energyad.{room}\n\n{_summary(room)}\n"
    entries = [f"::: {module}\n" for module in modules]
    return "\n".join([title, *entries])


def _summary(room: str) -> str:
    """The room's own docstring, where it is a package: a module's is shown with its entry."""
    path = PACKAGE / room / "__init__.py"
    return (
        (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        if path.is_file()
        else ""
    )
