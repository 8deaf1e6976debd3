"""Code blocks of Markdown pages, and how each is run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from typer.testing import CliRunner

from energyad.cli import app
from tests import ROOT

_BLOCK = re.compile(
    r"^(?P<indent> *)(?:<!-- not run: (?P<reason>[^\n]*?) -->\n(?P=indent))?```(?P<language>console|python)\n"
    r"(?P<body>.*?)^(?P=indent)```$",
    flags=re.DOTALL | re.MULTILINE,
)
MAY_FIND_SOMETHING = {"score", "drift"}
"""Commands whose status is 1 where a part is ng, or the line has shifted."""


@dataclass(frozen=True)
class Block:
    """A block of commands or of Python. not_run: why it is not run here; None where it is."""

    language: str
    body: str
    not_run: str | None

    @property
    def commands(self) -> list[str]:
        """The lines that a reader would type."""
        return [line[2:] for line in self.body.splitlines() if line.startswith("$ ")]


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [
        Block(m["language"], re.sub(rf"^{m['indent']}", "", m["body"], flags=re.MULTILINE), m["reason"])
        for m in found
    ]


@dataclass
class Session:
    """Runs blocks in the current folder, one after the other. Services get a port that is free."""

    runner: CliRunner = field(default_factory=CliRunner)
    services: list[subprocess.Popen[str]] = field(default_factory=list)
    port: int = 0

    def run(self, block: Block) -> None:
        """Run a block. Raises AssertionError, or whatever the block raises."""
        if block.language == "python":
            with contextlib.redirect_stdout(None):
                exec(compile(block.body, "<page>", "exec"), {"__name__": "__main__"})
            return
        for command in block.commands:
            self.run_command(command)

    def run_command(self, command: str) -> None:
        """Run one line."""
        words = shlex.split(command.removesuffix("&").replace(":8000/", f":{self.port}/"))
        if words[0] == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE), command
        elif words[:2] in (["energyad", "serve"], ["energyad", "review"]):
            self.serve(words)
        elif words[0] == "curl":
            done = subprocess.run([*words, "--fail"], capture_output=True, text=True, check=True)
            assert json.loads(done.stdout)
        else:
            assert words[0] == "energyad", command
            result = self.runner.invoke(app, words[1:])
            legal = {0, 1} if words[1] in MAY_FIND_SOMETHING else {0}
            assert result.exit_code in legal, f"{command}\n{result.output}\n{result.exception!r}"

    def serve(self, words: list[str]) -> None:
        """Start a service, and wait until it answers."""
        program = [sys.executable, "-m", *words, "--port", str(self.port)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.services.append(subprocess.Popen(program, stderr=subprocess.PIPE, text=True, env=environment))
        messages = self.services[-1].stderr
        assert messages is not None and "serving" in messages.readline()


@contextlib.contextmanager
def session() -> Iterator[Session]:
    """A session whose services end with it, with status 0."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    session = Session(port=port)
    try:
        yield session
    finally:
        for service in session.services:
            service.terminate()
    assert all(service.wait(30) == 0 for service in session.services)
