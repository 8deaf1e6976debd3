"""The reference of a fit's settings, from their declaration in the code."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from energyad.settings import SettingRow

HEAD = """# Settings

Every setting of a fit. Change one with `--set GROUP.NAME=VALUE`, which may be repeated:

```text
energyad fit --images good_parts/ --name gasket --set features.border_margin=8 --set 'features.coarse_strides=[]'
```

A value is JSON, `none`, or a bare word. An unknown name is answered with the near ones. From Python:

```text
energyad.FitSettings().with_values({"memory_bank.size": 512, "dxmi.iterations": 0})
```

What to change, and when: [Choose settings](../how-to/settings.md).
"""


def page() -> str:
    """The whole page."""
    from energyad.settings import settings_reference

    def group_of(row: SettingRow) -> str:
        return row.name.rpartition(".")[0]

    sections = [_section(group, list(rows)) for group, rows in groupby(settings_reference(), key=group_of)]
    return "\n\n".join([HEAD, *sections]) + "\n"


def _section(group: str, rows: list[SettingRow]) -> str:
    lines = [
        f"| `{row.name}` | {_cell(row.description)} | `{row.default}` | {_cell(row.legal)} |" for row in rows
    ]
    head = ["| name | what it is for | default | legal values |", "| --- | --- | --- | --- |"]
    return "\n".join([f"## {group or 'All groups'}", "", _purpose(group), "", *head, *lines])


def _purpose(group: str) -> str:
    """The first line of the group's docstring."""
    from energyad.settings import FitSettings

    settings = getattr(FitSettings(), group) if group else FitSettings()
    return (type(settings).__doc__ or "").strip().split("\n")[0]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
