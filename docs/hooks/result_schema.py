"""The reference of results, from their JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).parents[1] / "schema" / "result.schema.json"

HEAD = """# Results

One image gives one JSON object, and it is the same everywhere: `energyad score --json`, the HTTP service and
`energyad watch` all write it. All keys are always present. The schema itself (JSON Schema, draft 2020-12) is
[result.schema.json](../schema/result.schema.json).
"""


def page() -> str:
    """The whole page."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    parts = [HEAD, section("ImageResult", schema)]
    parts += [section(name, body) for name, body in schema.get("$defs", {}).items()]
    return "\n\n".join(parts) + "\n"


def section(name: str, body: dict[str, Any]) -> str:
    """A table of the keys of one kind of object."""
    lines = ["| key | type | what it is |", "| --- | --- | --- |"]
    for key, value in body.get("properties", {}).items():
        description = str(value.get("description", "")).replace("|", "\\|")
        lines.append(f"| `{key}` | {_type(value)} | {description} |")
    text = " ".join(str(body.get("description", "")).split())
    return f"## {name}\n\n{text}\n\n" + "\n".join(lines)


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "const" in value:
        return f"`{value['const']!r}`"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    if value.get("type") == "array":
        items = value.get("items")
        return f"list of {_type(items)}" if isinstance(items, dict) else "list"
    return str(value.get("type", "any"))
