"""The reference of a fit's settings, from the code."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def page() -> str:
    """The whole page."""
    from energyad.settings import FitSettings

    return f"# Settings\n\n{_table(FitSettings())}\n"


def _table(settings: Any, prefix: str = "") -> str:
    lines, nested = ["| name | default |", "| --- | --- |"], []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            nested.append(f"## {field.name}\n\n{_table(value, f'{prefix}{field.name}.')}")
        else:
            lines.append(f"| `{prefix}{field.name}` | `{value!r}` |")
    return "\n\n".join(["\n".join(lines), *nested])
