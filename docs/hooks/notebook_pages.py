"""The notebooks as pages: with the outputs that running them gives, where that is asked for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "notebooks"
SECONDS = 300
_DOLLARS = re.compile(r"(?<![\\$])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\$)")


def pages(*, execute: bool | None = None) -> dict[str, str | bytes]:
    """Path and content of each page and figure. execute: run them; by default where ENERGYAD_RUN_NOTEBOOKS is set."""
    import nbformat
    from nbconvert import MarkdownExporter

    execute = bool(os.environ.get("ENERGYAD_RUN_NOTEBOOKS")) if execute is None else execute
    found: dict[str, str | bytes] = {}
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        if execute:
            run(notebook)
        _formulas(notebook)
        text, resources = MarkdownExporter().from_notebook_node(notebook)
        for name, data in resources.get("outputs", {}).items():
            found[f"notebooks/{path.stem}_{name}"] = data
            text = text.replace(f"({name})", f"({path.stem}_{name})")
        found[f"notebooks/{path.stem}.md"] = text
    return found


def run(notebook: Any) -> None:
    """Run all cells in place, in a folder that is gone afterwards. Raises CellExecutionError."""
    import tempfile

    from jupyter_client import AsyncKernelManager
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        kernel = AsyncKernelManager(transport="ipc", connection_file=f"{folder}/kernel.json")
        where = {"metadata": {"path": folder}}
        NotebookClient(notebook, km=kernel, timeout=SECONDS, resources=where).execute()


def _formulas(notebook: Any) -> None:
    """Dollars, which Jupyter knows, become the brackets that the site knows."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _DOLLARS.sub(r"\\(\1\\)", cell.source)
