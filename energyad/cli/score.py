"""`energyad score`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import terminal
from energyad.cli.options import Debug, Json, Model, Quiet, Threads

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.inspection import ScoreRow


def score(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="Files, folders, globs; - reads paths from standard input."),
    ],
    model: Model = None,
    csv: Annotated[Path, typer.Option("--csv", metavar="FILE", help="Where the scores go as CSV.")] = Path(
        "scores.csv"
    ),
    no_csv: Annotated[bool, typer.Option("--no-csv", help="Write no CSV.")] = False,
    heatmaps: Annotated[bool, typer.Option("--heatmaps", help="Write an overlay for each image.")] = False,
    heatmaps_dir: Annotated[
        Path | None,
        typer.Option("--heatmaps-dir", metavar="DIR", help="Where overlays go; default heatmaps/."),
    ] = None,
    as_json: Json = False,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score images: the higher, the more abnormal.

    \b
      energyad score new/ --heatmaps
      energyad score 'line3/*.png' --model gasket --json | jq .score
      find . -name '*.bmp' | energyad score - --quiet || echo look at it

    An image that cannot be read gets a row with the reason, and the others are scored all the same.

    \b
    Exit status: 0  nothing above the threshold
                 1  something above it
                 2  an error, also where one image could not be read
    """
    from energyad import artifact
    from energyad.detector import AnomalyDetector
    from energyad.files import write_whole
    from energyad.inspection import by_score, scores_csv

    overlays = heatmaps_dir or Path("heatmaps")
    folder = artifact.find_model(model)
    paths = _find(sources, overlays)
    detector = AnomalyDetector.load(folder, threads=threads)
    wanted = overlays if heatmaps or heatmaps_dir is not None else None
    rows = _score_all(detector, paths, overlays=wanted, as_json=as_json)
    if not as_json:
        _print_rows(by_score(rows))
    if not no_csv:
        write_whole(csv, scores_csv(by_score(rows)))
    written = [str(csv)] * (not no_csv) + ([f"{wanted}/"] if wanted is not None else [])
    raise typer.Exit(_conclude(rows, written, threshold=detector.threshold))


def _find(sources: Iterable[str], overlays: Path) -> list[Path]:
    """The images of all sources; what lies among earlier overlays is no image to score."""
    from energyad.errors import DataError
    from energyad.images import find_images

    found: dict[Path, None] = {}
    for source in sources:
        if source == "-":
            lines = [line.rstrip("\r\n") for line in sys.stdin]
            # A file that has gone since it was listed costs its row alone, so files are not looked up here.
            for line in filter(None, lines):
                found.update(dict.fromkeys(find_images([line]) if Path(line).is_dir() else [Path(line)]))
        else:
            found.update(dict.fromkeys(find_images([source])))
    own = overlays.resolve()
    paths = [path for path in found if not path.resolve().is_relative_to(own)]
    if len(paths) < len(found):
        terminal.warn(f"{len(found) - len(paths)} overlays in {overlays}/ left out")
    if not paths:
        raise DataError(
            "no image was named: give an image, a folder, a glob or - with paths on standard input"
        )
    return paths


def _score_all(
    detector: AnomalyDetector, paths: Sequence[Path], *, overlays: Path | None, as_json: bool
) -> list[ScoreRow]:
    from energyad.cli.bar import Bar
    from energyad.images import write_png
    from energyad.inspection import ScoreRow, inspect_files
    from energyad.overlays import ColourScale, overlay, overlay_places
    from energyad.sheet import legend

    scale, rows = ColourScale(detector.threshold), list[ScoreRow]()
    places = {} if overlays is None else overlay_places(paths, overlays)
    if overlays is not None:
        write_png(overlays / "colour-scale.png", legend(scale))
    with Bar(drawn=not (as_json and sys.stdout.isatty())) as bar:
        bar.stage("scoring", len(paths))
        for inspection in inspect_files(detector, paths):
            place = places.get(inspection.path)
            if place is not None and inspection.pixels is not None and inspection.prediction is not None:
                write_png(place, overlay(inspection.pixels, inspection.prediction.heatmap, scale))
            rows.append(ScoreRow.of(inspection, threshold=detector.threshold, heatmap=place))
            if as_json:
                typer.echo(json.dumps(asdict(rows[-1]), ensure_ascii=False))
            bar.advance()
    return rows


def _print_rows(rows: Sequence[ScoreRow]) -> None:
    def cells(row: ScoreRow) -> tuple[str, str, str]:
        if row.score is None:
            return "", "unreadable", f"{row.path}: {row.error}"
        return f"{row.score:#.4g}", "anomalous" if row.is_anomalous else "normal", row.path

    terminal.print_table(("score", "verdict", "image"), [cells(row) for row in rows], right=("score",))


def _conclude(rows: Sequence[ScoreRow], written: Sequence[str], *, threshold: float) -> int:
    anomalous = sum(row.is_anomalous is True for row in rows)
    unreadable = sum(row.error is not None for row in rows)
    where = f"; see {' and '.join(written)}" if written else ""
    terminal.say(f"{anomalous} of {len(rows)} images above the threshold {threshold:.4g}{where}")
    if unreadable:
        terminal.fail(f"{unreadable} of {len(rows)} images could not be read; their rows say why")
        return terminal.ERROR_STATUS
    return 1 if anomalous else 0
