"""Figures."""

from pathlib import Path


def draw_figures(rows: list, folder: Path) -> None: ...
