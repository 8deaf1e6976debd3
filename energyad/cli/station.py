"""`energyad station`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Quiet
from energyad.errors import SettingsError

if TYPE_CHECKING:
    from energyad.station.config import AlignConfig, ChecksConfig
    from energyad.station.writing import Answers

DEFAULT_FILE: Final = "station.toml"
DEFAULT_FOLDER: Final = "incoming"


def station(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="new | check | align [FILE]", help="What to do; FILE is station.toml by default."
        ),
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
    align: Annotated[
        Path | None,
        typer.Option(
            "--align",
            metavar="IMAGE",
            help="Of a good part: parts are moved onto it; needs --samples.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where `align` writes aligned samples.")
    ] = None,
    white_level: Annotated[
        int | None,
        typer.Option("--white-level", min=1, max=65535, help="Of samples of 16 bits, as in `fit`."),
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
      energyad station align --samples good --out aligned
      energyad run

    `new` asks for what no option says, where a person sits at the terminal. It makes the views' folders. `check` with
    --samples also says how each view finds the parts of these images. `align` writes the samples as the first view, or
    the one that --view names, sees them: fit and calibrate its model on these.

    Exit status: 0, or 2 where something is wrong.
    """
    if words[0] not in ("new", "check", "align") or len(words) > 2:
        raise SettingsError(f"{' '.join(words)}: give new, check or align, and at most one file")
    file = Path(words[1] if len(words) > 1 else DEFAULT_FILE)
    if words[0] == "check":
        _check(file, samples)
        return
    if words[0] == "align":
        _align(file, samples, out, view[0] if view else None, white_level)
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
        align=None if align is None else _chosen(align, samples, file),
    )
    _write(file, answers)


def _limits(folder: Path) -> ChecksConfig:
    """Limits for frames, from images of good parts."""
    from energyad.images.finding import find_images
    from energyad.images.reading import read_image
    from energyad.station.frames import learn_limits, measure_frame

    images = find_images([folder])
    return learn_limits([measure_frame(read_image(path)) for path in images])


def _chosen(reference: Path, samples: Path | None, file: Path) -> AlignConfig:
    """The reference, the method that finds the sample parts best, and its limit."""
    from energyad.images.finding import find_images
    from energyad.station.aligning import choose_method, limit_of
    from energyad.station.config import AlignConfig

    if samples is None:
        raise SettingsError("--align: needs --samples, a folder with images of good parts")
    best, trials = choose_method(reference, find_images([samples]))
    for trial in trials:
        console.say(
            f"align     {trial.method}: {trial.found} of {trial.samples}, correlation {trial.correlation:.2f}"
        )
    place = Path(os.path.relpath(reference, file.parent))
    return AlignConfig(reference=place, method=best.method, min_correlation=limit_of(best))


def _align(
    file: Path, samples: Path | None, out: Path | None, name: str | None, white_level: int | None
) -> None:
    """Write sample images as a view moves them."""
    from energyad.images.finding import find_images
    from energyad.station.aligning import open_aligner, write_aligned
    from energyad.station.config import read_station

    if samples is None or out is None:
        raise SettingsError("station align: give --samples and --out, two folders")
    config = read_station(file)
    views = [view for view in config.views if view.align is not None and name in (None, view.name)]
    if not views or views[0].align is None:
        raise SettingsError(f"{file}: view {name or config.views[0].name} has no `align`; give it one")
    paths = find_images([samples])
    aligner = open_aligner(views[0].align, white_level=white_level)
    count = write_aligned(aligner, paths, out, white_level=white_level, warn=console.warn)
    console.say(f"wrote     {count} of {len(paths)} images to {out}/, as view {views[0].name} sees them")


def _write(file: Path, answers: Answers) -> None:
    from energyad.station.writing import write_station

    write_station(file, answers)
    console.say(
        f"wrote     {file}; look at it, then `energyad station check {file}` and `energyad run {file}`"
    )


def _check(file: Path, samples: Path | None) -> None:
    from energyad.images.finding import find_images
    from energyad.station.checking import check_station

    findings = check_station(file, samples=() if samples is None else find_images([samples]))
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
