"""`energyad report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import DataRoot, Debug, Model, Quiet, Threads

if TYPE_CHECKING:
    from energyad.cli.progress import RichProgress
    from energyad.report import Report


def report(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RESULTS|IMAGES]",
            help="A file or database of `watch`, a file of `score --json`, or a folder of images.",
        ),
    ] = None,
    model: Model = None,
    category: Annotated[
        str | None, typer.Option("--category", "-c", metavar="NAME", help="A labelled category instead.")
    ] = None,
    data_root: DataRoot = None,
    images_in: Annotated[
        Path | None,
        typer.Option("--images-in", metavar="DIR", help="Where the images of RESULTS are now, if moved."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where the page goes.")] = Path(
        "report.html"
    ),
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make one HTML page of results that needs no other file and no network.

    \b
      energyad report results.jsonl --model gasket     what was found; nothing is scored again
      energyad report new/ --model gasket              score a folder, with heatmaps
      energyad report --category screw                 labelled images: figures for each type of defect

    It shows the scores with the threshold, every image by rank with its regions, the calibration and what it promises,
    drift, and the model card. Pictures are those of the 1,000 highest scores.
    """
    from energyad.cli.progress import RichProgress
    from energyad.errors import SettingsError
    from energyad.files import atomic_write
    from energyad.report import html_page

    if (source is None) == (category is None):
        raise SettingsError("give a results file, a folder of images or --category, one of the three")
    with RichProgress() as progress:
        if category is not None:
            contents, name = _of_category(category, data_root, model, threads, progress), category
        elif source is not None:
            contents = _of_source(source, model, images_in, threads, progress)
            name = source.name or str(source)
    page = atomic_write(out, html_page(contents, title=f"{name} · model {contents.manifest.name}"))
    megabytes = page.stat().st_size / 1e6
    console.say(f"{len(contents.images)} images in {page} ({megabytes:.1f} MB); open it in a browser")


def _of_source(
    source: Path, model: str | None, images_in: Path | None, threads: int | None, progress: RichProgress
) -> Report:
    from energyad.images.finding import IMAGE_SUFFIXES

    if source.is_file() and source.suffix.lower() not in IMAGE_SUFFIXES:
        return _of_results(source, model, images_in, progress)
    return _of_images(source, model, threads, progress)


def _of_category(
    category: str, data_root: Path | None, model: str | None, threads: int | None, progress: RichProgress
) -> Report:
    from energyad.data.datasets import open_category
    from energyad.detector import AnomalyDetector
    from energyad.evaluation.evaluate import evaluate
    from energyad.model.folder import find_model
    from energyad.report import of_category

    data = open_category(category, data_root=data_root)
    detector = AnomalyDetector.load(find_model(model or category), threads=threads)
    evaluation = evaluate(detector, data, progress=progress)
    return of_category(detector, evaluation, progress=progress)


def _of_results(path: Path, model: str | None, images_in: Path | None, progress: RichProgress) -> Report:
    from energyad.errors import DataError
    from energyad.line.journal import read_results
    from energyad.model.folder import find_model, read_manifest
    from energyad.report import of_results

    manifest = read_manifest(find_model(model))
    lines = read_results(path)
    if not lines:
        raise DataError(f"{path}: holds no results yet")
    return of_results(lines, manifest, source=path, images_in=images_in, progress=progress)


def _of_images(path: Path, model: str | None, threads: int | None, progress: RichProgress) -> Report:
    from energyad.detector import AnomalyDetector
    from energyad.images.finding import find_images
    from energyad.model.folder import find_model
    from energyad.report import of_images

    paths = find_images([path])
    detector = AnomalyDetector.load(find_model(model), threads=threads)
    return of_images(detector, paths, progress=progress)
