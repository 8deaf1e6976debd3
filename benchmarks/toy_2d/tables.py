"""Tables."""

from pathlib import Path


def tables(rows: list) -> str:
    return str(len(rows))


def write_into_readme(text: str, path: Path) -> None: ...
