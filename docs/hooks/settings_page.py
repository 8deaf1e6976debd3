"""The reference of a fit's settings, from the code."""

from __future__ import annotations

from itertools import groupby

HEAD = "| name | default | legal values | what it is for |\n| --- | --- | --- | --- |"


def page() -> str:
    """The whole page."""
    from energyad.settings import SettingRow, settings_reference

    def group(row: SettingRow) -> str:
        return row.name.rpartition(".")[0]

    parts = ["# Settings"]
    for name, rows in groupby(settings_reference(), key=group):
        lines = [f"| `{row.name}` | `{row.default}` | {row.legal} | {row.description} |" for row in rows]
        parts.append("\n".join([f"## {name or 'seed'}\n", HEAD, *lines]))
    return "\n\n".join(parts) + "\n"
