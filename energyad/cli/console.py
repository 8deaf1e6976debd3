"""What the program says: results on standard output, everything else on standard error; errors as one line."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, ParamSpec, TextIO

import typer

from energyad.errors import EnergyadError

if TYPE_CHECKING:
    from rich.console import Console

ERROR_STATUS: Final = 2
UNPRINTABLE: Final = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
"""Unicode categories of characters that move the cursor, hide or turn text."""
_P = ParamSpec("_P")
# Their warnings are for whoever calls them, which is energyad, not its user.
_LIBRARIES: Final = (
    r"(torch|torchvision|timm|onnx|onnxscript|onnxruntime|anomalib|lightning|sklearn|numpy|copyreg)\b"
)


@dataclass
class _Wishes:
    quiet: bool = False
    debug: bool = False


_wishes = _Wishes()


def reset() -> None:
    """Forget --quiet and --debug."""
    _wishes.quiet = _wishes.debug = False


def set_quiet(wanted: bool) -> bool:
    """Note --quiet, given before or after the command."""
    _wishes.quiet = _wishes.quiet or wanted
    return wanted


def set_debug(wanted: bool) -> bool:
    """Note --debug, given before or after the command."""
    _wishes.debug = _wishes.debug or wanted
    return wanted


def is_quiet() -> bool:
    """Whether only errors are wanted."""
    return _wishes.quiet


@functools.cache
def messages() -> Console:
    """Standard error. rich honours NO_COLOR, and leaves colour out where it is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, *, style: str = "") -> None:
    """A message for people."""
    if not _wishes.quiet:
        messages().print(printable(text), style=style, markup=False)


def warn(text: str) -> None:
    """A message that should not be overlooked."""
    if not _wishes.quiet:
        _marked("warning", "yellow", text)


def fail(text: str) -> None:
    """An error, said even with --quiet."""
    _marked("error", "bold red", text)


def _marked(mark: str, style: str, text: str) -> None:
    from rich.text import Text

    messages().print(Text.assemble((f"{mark}: ", style), printable(" ".join(text.split()))))


def echo_json(text: str) -> None:
    """Print a JSON text on standard output, with escapes where the terminal's encoding lacks a character."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(json.loads(text))
    typer.echo(text)


def printable(text: str) -> str:
    """Return text with control characters, escape sequences and marks of writing direction written out.

    File names may hold any of them, and a terminal would obey (CWE-150).
    """
    return "".join(
        character
        if character == "\n" or unicodedata.category(character) not in UNPRINTABLE
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table on standard output; columns named in `right` are aligned right.

    Where standard output is no terminal, lines are as long as they need to be and end in no blanks.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    terminal = sys.stdout.isatty()
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    console = Console(highlight=False) if terminal else Console(width=10_000, highlight=False)
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().strip("\n").splitlines():
        typer.echo(line.rstrip())


def _plain(cell: str) -> str:
    from rich.markup import escape

    return escape(printable(cell).replace("\n", "\\n"))


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each of energyad's own warnings once, as a line; those of other libraries with --debug only."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        warn(str(message))

    with warnings.catch_warnings():
        if not _wishes.debug:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", category=UserWarning)
            warnings.filterwarnings("ignore", module=_LIBRARIES)
            for silent in (DeprecationWarning, FutureWarning, ImportWarning, ResourceWarning):
                warnings.filterwarnings("ignore", category=silent)
        warnings.showwarning = show
        yield


def guarded(command: Callable[_P, None]) -> Callable[_P, None]:
    """A command whose every error ends as one line on standard error and status 2."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            for stream in (sys.stdout, sys.stderr):
                if hasattr(stream, "reconfigure"):  # not where a caller has put its own
                    stream.reconfigure(errors="backslashreplace")
            with _warnings_as_lines():
                command(*args, **kwargs)
            sys.stdout.flush()
        except typer.Exit:
            raise
        except BrokenPipeError:  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(ERROR_STATUS) from None
        except (Exception, KeyboardInterrupt) as error:
            if _wishes.debug:
                traceback.print_exc()
            fail(_explained(error))
            raise typer.Exit(ERROR_STATUS) from None

    return run


def _explained(error: BaseException) -> str:
    if isinstance(error, EnergyadError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "stopped; models and files that were there before are as they were"
    if isinstance(error, MemoryError):
        return "out of memory; use a smaller --image-size or fewer images"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}; check the path, its permissions and the space left"
    return f"{type(error).__name__}: {error} (a fault of energyad: run again with --debug and report it)"
