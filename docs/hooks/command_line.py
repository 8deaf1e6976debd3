"""The reference of the command line, from the program itself."""

from __future__ import annotations

import re
from typing import Any

PREVENTED_WRAPPING = "\b"


def page() -> str:
    """The whole page."""
    import typer

    from energyad.cli import app

    group: Any = typer.main.get_command(app)
    names = ", ".join(f"[`{name}`](#{name})" for name in group.commands)
    head = f"# Command line\n\nCommands: {names}.\n\n{_prose(group.help or '')}\n"
    return "\n".join([head, *(_command(name, command) for name, command in group.commands.items())])


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    given = " ".join(f"{(p.metavar or p.name).upper()}" for p in arguments)
    usage = f"```text\nenergyad {name} [OPTIONS] {given}".rstrip() + "\n```"
    text = [f"## {name}", _prose(command.help or ""), usage]
    if arguments:
        text.append(_table("argument", [((p.metavar or p.name).upper(), p) for p in arguments]))
    text.append(_table("option", [(_written(p), p) for p in options]))
    return "\n\n".join(text) + "\n"


def _written(option: Any) -> str:
    """How an option is typed: --name, -n, and what follows it."""
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if getattr(option, "is_flag", False) or not option.metavar else f"{names} {option.metavar}"


def _table(kind: str, params: list[tuple[str, Any]]) -> str:
    lines = [f"| {kind} | what it is | default |", "| --- | --- | --- |"]
    for written, param in params:
        text = " ".join((param.help or "").split()).replace("|", "\\|")
        lines.append(f"| `{written}` | {text} | {_default(param)} |".replace("  ", " "))
    return "\n".join(lines)


def _default(param: Any) -> str:
    value = param.default
    shown = not callable(value) and value not in (None, False, (), [], ...) and not param.required
    return f"`{value}`" if shown else ""


def _prose(help_text: str) -> str:
    """A help text as Markdown: its blocks that keep their lines become code."""
    blocks = []
    for block in re.split(r"\n\s*\n", help_text):
        lines = block.splitlines()
        if lines and lines[0].strip() == PREVENTED_WRAPPING:
            width = min((len(line) - len(line.lstrip()) for line in lines[1:] if line.strip()), default=0)
            blocks.append("\n".join(["```text", *(line[width:] for line in lines[1:]), "```"]))
        else:
            blocks.append(" ".join(line.strip() for line in lines))
    return "\n\n".join(blocks)
