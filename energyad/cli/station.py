"""`energyad station`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Quiet
from energyad.errors import SettingsError

if TYPE_CHECKING:
    from energyad.station.config import ChecksConfig
    from energyad.station.writing import Answers

DEFAULT_FILE: Final = "station.toml"
DEFAULT_FOLDER: Final = "incoming"


def station(
    words: Annotated[
        list[str],
        typer.Argument(metavar="new | check [FILE]", help="What to do; FILE is station.toml by default."),
    ],
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Of a new station.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME_OR_DIR", help="Of all views of a new station."),
    ] = None,
    view: Annotated[
        list[str] | None,
        typer.Option("--view", metavar="NAME=DIR", help="A view and its folder; give it again for several."),
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples", metavar="DIR", help="Images of good parts: limits for dark, blurred, empty frames."
        ),
    ] = None,
    images: Annotated[
        str | None, typer.Option("--images", metavar="DIR", help="Move scored images there, by verdict.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option("--budget", min=0.0, metavar="SECONDS", help="For one verdict.")
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option("--mqtt", metavar="HOST[:PORT]", help="Tell an MQTT broker.")
    ] = None,
    modbus: Annotated[
        int | None, typer.Option("--modbus", min=0, max=65535, metavar="PORT", help="Serve Modbus TCP.")
    ] = None,
    opcua: Annotated[
        int | None, typer.Option("--opcua", min=0, max=65535, metavar="PORT", help="Serve OPC UA.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="POST each part there.")
    ] = None,
    archive: Annotated[
        str | None, typer.Option("--archive", metavar="DIR", help="Write tables of all parts there.")
    ] = None,
    metrics: Annotated[
        int | None, typer.Option("--metrics", min=0, max=65535, metavar="PORT", help="Serve Prometheus.")
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the file of a new station, or say what would keep a station from running.

    \b
      energyad station new --name press-4 --model gasket --view front=incoming --mqtt localhost
      energyad station check
      energyad run

    `new` asks for what no option says, where a person sits at the terminal. It makes the views' folders.

    Exit status: 0, or 2 where something is wrong.
    """
    if words[0] not in ("new", "check") or len(words) > 2:
        raise SettingsError(f"{' '.join(words)}: give new or check, and at most one file")
    file = Path(words[1] if len(words) > 1 else DEFAULT_FILE)
    if words[0] == "check":
        _check(file)
        return
    from energyad.station.writing import Answers

    answers = Answers(
        name=name or _ask("Name of the station", "line"),
        model=model or _ask("Model (a name under models/, or a folder)", _only_model()),
        views=[_view(text) for text in view or [_ask("Folder that images arrive in", DEFAULT_FOLDER)]],
        images=images,
        budget=budget,
        mqtt=None if mqtt is None else _broker(mqtt),
        modbus=modbus,
        opcua=opcua,
        webhook=webhook,
        archive=archive,
        metrics=metrics,
        checks=None if samples is None else _limits(samples),
    )
    _write(file, answers)


def _limits(folder: Path) -> ChecksConfig:
    """Limits for frames, from images of good parts."""
    from energyad.images.finding import find_images
    from energyad.images.reading import read_image
    from energyad.station.frames import learn_limits, measure_frame

    images = find_images([folder])
    return learn_limits([measure_frame(read_image(path)) for path in images])


def _write(file: Path, answers: Answers) -> None:
    from energyad.station.writing import write_station

    write_station(file, answers)
    console.say(
        f"wrote     {file}; look at it, then `energyad station check {file}` and `energyad run {file}`"
    )


def _check(file: Path) -> None:
    from energyad.station.checking import check_station

    findings = check_station(file)
    for finding in findings:
        (console.fail if finding.is_fault else console.say)(f"{finding.what}: {finding.detail}")
    if any(finding.is_fault for finding in findings):
        raise typer.Exit(console.ERROR_STATUS)
    console.say("nothing is wrong")


def _ask(question: str, default: str | None) -> str:
    """A person's answer; the default where nobody sits at the terminal."""
    if sys.stdin is not None and sys.stdin.isatty() and not console.is_quiet():
        return str(typer.prompt(question, default=default, err=True))
    if default is None:
        raise SettingsError(f"{question}: give it as an option; `energyad station --help` lists them")
    return default


def _only_model() -> str | None:
    """The name of the only model under models/."""
    from energyad.model.folder import DEFAULT_FOLDER as MODELS
    from energyad.model.folder import list_models

    present = list_models(MODELS)
    return present[0].name if len(present) == 1 else None


def _view(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    return (name, folder) if equals else ("front", text)


def _broker(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, 1883
    if not port.isdecimal() or not host:
        raise SettingsError(f"--mqtt {text}: give HOST or HOST:PORT")
    return host, int(port)
