"""`energyad evaluate`."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import (
    DataRoot,
    Debug,
    Download,
    Field,
    Json,
    Model,
    Quiet,
    Runtime,
    Threads,
    fields_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from energyad.data.datasets import Category
    from energyad.detector import AnomalyDetector
    from energyad.evaluation.evaluate import Evaluation
    from energyad.evaluation.synthetic import SizeRow

SYNTHETIC_NOTE = (
    "Synthetic defects are stand-ins, and the fit learned from others of the same kinds: of real ones fewer may be "
    "found. What is hardly found here is hardly found at all."
)


def evaluate(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGES]", help="With --synthetic: good parts, as files, folders, globs."),
    ] = None,
    category: Annotated[
        str | None, typer.Option("--category", "-c", metavar="NAME", help="A category in the MVTec layout.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="PLACE", help="A labelled data set, as `energyad label` reads it."),
    ] = None,
    field: Field = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Draw defects on images of good parts, and test on these.")
    ] = False,
    model: Model = None,
    data_root: DataRoot = None,
    download: Download = False,
    per_image: Annotated[
        int | None,
        typer.Option(
            "--per-image",
            min=1,
            metavar="N",
            help="Synthetic defects of each image, one a copy; default: about 120 in all.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the synthetic defects.")] = 0,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Also write a picture sheet and an HTML page there, and the images of --synthetic.",
        ),
    ] = None,
    as_json: Json = False,
    threads: Threads = None,
    runtime: Runtime = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a model on a category's test images, on a labelled data set, or on synthetic defects.

    \b
      energyad evaluate --category screw
      energyad evaluate --category screw --json | jq .image_auroc
      energyad evaluate --category screw --report report/
      energyad evaluate --labels annotations.json --model gasket    COCO, labelme, CVAT, Datumaro, FiftyOne
      energyad evaluate --synthetic good_of_today/ --model gasket

    Without --model, it is the one named as the category. Pixel figures are those at the model's input size, over all
    test images; AUPRO goes up to a false positive rate of 0.3. Best F1 is over images. The images of --synthetic must
    be of good parts that the model was not fitted on. It also tells which sizes of defects are found: in pixels of
    these images, the diameter of a disc as large as the defect.
    """
    from energyad.data.datasets import download_category, open_category
    from energyad.detector import AnomalyDetector
    from energyad.errors import SettingsError
    from energyad.images.finding import find_images
    from energyad.model.folder import find_model

    if synthetic != bool(sources) or synthetic + (category is not None) + (labels is not None) != 1:
        raise SettingsError(
            "give either --category NAME, --labels PLACE or --synthetic with images of good parts"
        )
    fields = fields_of(labels, field)
    if labels is not None:
        detector = AnomalyDetector.load(find_model(model), threads=threads, runtime=runtime)
        _evaluate_labels(detector, labels, fields, report, as_json=as_json)
    elif category is None:
        folder, paths = find_model(model), find_images(sources or [])
        detector = AnomalyDetector.load(folder, threads=threads, runtime=runtime)
        _evaluate_synthetic(detector, paths, per_image, seed, report, as_json=as_json)
    else:
        data = (download_category if download else open_category)(category, data_root=data_root)
        detector = AnomalyDetector.load(find_model(model or category), threads=threads, runtime=runtime)
        _evaluate_category(detector, data, report, as_json=as_json)
    if report is not None:
        console.say(f"report in {report}/: index.html, sheet.png")


def _evaluate_labels(
    detector: AnomalyDetector, source: Path, fields: Sequence[str], report: Path | None, *, as_json: bool
) -> None:
    from energyad.feedback.importing import read_labels
    from energyad.feedback.labelled_parts import category_of_labels

    with tempfile.TemporaryDirectory(prefix="energyad-") as masks:
        labels = read_labels(source, fields=fields)
        data = category_of_labels(labels, name=detector.name, masks=Path(masks))
        _evaluate_category(detector, data, report, as_json=as_json)


def _evaluate_category(
    detector: AnomalyDetector, category: Category, report: Path | None, *, as_json: bool
) -> None:
    from energyad.cli.progress import RichProgress
    from energyad.evaluation.evaluate import evaluate as measure

    with RichProgress() as progress:
        evaluation = measure(detector, category, progress=progress)
    if as_json:
        console.echo_json(json.dumps(evaluation.to_dict(), ensure_ascii=False))
    else:
        print_evaluation(evaluation)
    if report is not None:
        from energyad.report import write_report

        write_report(report, detector, evaluation, title=f"{category.name} · model {detector.name}")


def _evaluate_synthetic(
    detector: AnomalyDetector,
    paths: Sequence[Path],
    per_image: int | None,
    seed: int,
    report: Path | None,
    *,
    as_json: bool,
) -> None:
    from energyad.cli.progress import RichProgress
    from energyad.evaluation.synthetic import evaluate_synthetic

    with contextlib.ExitStack() as stack:
        report_folder = report or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="energyad-")))
        with RichProgress() as progress:
            result = evaluate_synthetic(
                detector, paths, report_folder, per_image=per_image, seed=seed, progress=progress
            )
        if report is not None:
            from energyad.report import write_report

            title = f"{detector.name} · synthetic defects"
            write_report(report, detector, result.evaluation, title=title, note=SYNTHETIC_NOTE)
    if as_json:
        console.echo_json(json.dumps(result.to_dict(), ensure_ascii=False))
    else:
        print_evaluation(result.evaluation)
        _print_sizes(result.sizes)
    console.say(f"\n{SYNTHETIC_NOTE}")


def _print_sizes(sizes: Sequence[SizeRow]) -> None:
    typer.echo("")
    columns = ("defect's size", "images", "above threshold")
    rows = [(_size_range(row), str(row.images), str(row.above_threshold)) for row in sizes]
    console.print_table(columns, rows, right=columns[1:])


def _size_range(row: SizeRow) -> str:
    return f"{row.above} to {row.below} px" if row.above else f"below {row.below} px"


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the figures, and a row for each type of defect, on standard output."""
    interval = evaluation.image_auroc_interval
    between = "" if interval is None else f"  (95 %: {interval[0]:.3f} to {interval[1]:.3f})"
    typer.echo(f"category     {evaluation.category}, {len(evaluation.items)} test images")
    if evaluation.recognised is not None:
        typer.echo(f"recognised   {evaluation.recognised} of them as {evaluation.category}")
    typer.echo(f"image AUROC  {_figure(evaluation.image_auroc)}{between}")
    height, width = evaluation.resolution
    typer.echo(f"pixel AUROC  {_figure(evaluation.pixel_auroc)}  (at {width} × {height} px)")
    typer.echo(f"AUPRO        {_figure(evaluation.aupro)}")
    typer.echo(f"best F1      {_figure(evaluation.f1_max)}\n")
    columns = ("type", "images", "above threshold", "image AUROC", "pixel AUROC", "AUPRO")
    rows = [
        (
            row.defect_type,
            str(row.images),
            str(row.above_threshold),
            *(_figure(value) for value in (row.image_auroc, row.pixel_auroc, row.aupro)),
        )
        for row in evaluation.types
    ]
    console.print_table(columns, rows, right=columns[1:])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
