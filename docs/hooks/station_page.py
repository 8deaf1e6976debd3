"""The reference of a station's file and of the verdicts that it tells, from their declarations."""

from __future__ import annotations

import json
import types
import typing
from pathlib import Path
from typing import Any

from result_schema import section

SCHEMA = Path(__file__).parents[1] / "schema" / "part.schema.json"
HEAD = """# Station file

`energyad station new` writes one, `energyad station check` looks through it, `energyad run` runs it: see
[A station](../how-to/station.md). Paths are relative to the file. A table that is absent is an output that is not
there.
"""


def page() -> str:
    """The whole page."""
    from energyad.station.config import StationConfig

    parts = [HEAD, *_tables(StationConfig, "")]
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    parts.append(
        "## A part as JSON\n\nWhat every output tells. `result` is the [result of an image](results.md). The schema is "
        "[part.schema.json](../schema/part.schema.json)."
    )
    for name, body in (("PartResult", schema), ("ViewResult", schema["$defs"]["ViewResult"])):
        parts.append(
            section(name, body).replace("## ", "### ").replace("(#imageresult)", "(results.md#imageresult)")
        )
    return "\n\n".join(parts) + "\n"


def _tables(model: Any, name: str) -> list[str]:
    """A table of settings for a model and for each that it holds."""
    lines = ["| name | default | what it is |", "| --- | --- | --- |"]
    inner = []
    for field_name, field in model.model_fields.items():
        nested = _model_in(field.annotation)
        if nested is not None:
            inner += _tables(nested, f"[[{field_name}]]" if field_name == "views" else f"[{field_name}]")
            continue
        default = (
            ""
            if field.is_required() or field.default in (None, "")
            else f"`{json.dumps(field.default, default=str)}`"
        )
        lines.append(f"| `{field_name}` | {default} | {_meaning(field)} |")
    title = f"## `{name}`" if name else "## Of the station"
    about = " ".join((model.__doc__ or "").split())
    return [f"{title}\n\n{about}\n\n" + "\n".join(lines), *inner]


def _default(field: Any) -> str:
    if field.is_required() or field.default in (None, ""):
        return ""
    return f"`{json.dumps(field.default, default=str)}`"


def _meaning(field: Any) -> str:
    choices = (
        typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    )
    words = f" ({', '.join(f'`{choice}`' for choice in choices)})" if choices else ""
    return f"{field.description}{words}{'; required' if field.is_required() else ''}"


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if hasattr(annotation, "model_fields") else None
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
