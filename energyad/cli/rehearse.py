"""`energyad rehearse`."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.evaluate import print_evaluation
from energyad.cli.options import Debug, Json, Model, Quiet, Runtime, Threads

if TYPE_CHECKING:
    from energyad.evaluation.rehearsal import SizeRow

NOTE = (
    "Planted defects are stand-ins, and the fit learned from others of the same kinds: of real ones fewer may be "
    "found. What is hardly found here is hardly found at all."
)


def rehearse(
    sources: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="Good parts: files, folders, globs.")
    ],
    model: Model = None,
    per_image: Annotated[
        int | None,
        typer.Option(
            "--per-image", min=1, metavar="N", help="Defects on each, one a copy; default: about 120 in all."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Keep the images, a picture sheet and a page there."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the defects.")] = 0,
    as_json: Json = False,
    threads: Threads = None,
    runtime: Runtime = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Plant defects on images of good parts and tell which a model finds, by kind and by size.

    \b
      energyad rehearse good_of_today/ --model gasket
      energyad rehearse good_of_today/ --model gasket --output rehearsal/

    For when there are no defects yet. The images must be of parts that the model was not fitted on. Sizes are in
    pixels of these images: the diameter of a disc as large as the defect.
    """
    from energyad.cli.progress import RichProgress
    from energyad.detector import AnomalyDetector
    from energyad.evaluation.rehearsal import rehearse as measure
    from energyad.images.finding import find_images
    from energyad.model.folder import find_model

    folder = find_model(model)
    paths = find_images(sources)
    detector = AnomalyDetector.load(folder, threads=threads, runtime=runtime)
    with contextlib.ExitStack() as stack:
        place = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="energyad-")))
        with RichProgress() as bar:
            found = measure(detector, paths, place, per_image=per_image, seed=seed, progress=bar)
        if output is not None:
            from energyad.report import write_report

            title = f"{detector.name} · planted defects"
            write_report(output, detector, found.evaluation, title=title, note=NOTE)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        print_evaluation(found.evaluation)
        typer.echo("")
        columns = ("defect's size", "images", "above threshold")
        rows = [(_band(row), str(row.images), str(row.above_threshold)) for row in found.sizes]
        console.print_table(columns, rows, right=columns[1:])
    console.say(f"\n{NOTE}")
    if output is not None:
        console.say(f"look at   {output / 'index.html'}   and   {output / 'sheet.png'}")


def _band(row: SizeRow) -> str:
    return f"{row.above} to {row.below} px" if row.above else f"below {row.below} px"
