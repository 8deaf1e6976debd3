"""`energyad evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import DataRoot, Debug, Download, Json, Model, Quiet, Runtime, Threads

if TYPE_CHECKING:
    from energyad.evaluation.evaluate import Evaluation


def evaluate(
    category: Annotated[
        str, typer.Option("--category", "-c", metavar="NAME", help="A category in the MVTec layout.")
    ],
    model: Model = None,
    data_root: DataRoot = None,
    download: Download = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="DIR", help="Also write a picture sheet and an HTML page there."),
    ] = None,
    as_json: Json = False,
    threads: Threads = None,
    runtime: Runtime = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure a model on a category's test images.

    \b
      energyad evaluate --category screw
      energyad evaluate --category screw --json | jq .image_auroc
      energyad evaluate --category screw --report report/

    Without --model, it is the one named as the category. Pixel figures are those at the model's input size, over all
    test images; AUPRO goes up to a false positive rate of 0.3. Best F1 is over images.
    """
    from energyad.cli.progress import RichProgress
    from energyad.data.datasets import download_category, open_category
    from energyad.detector import AnomalyDetector
    from energyad.evaluation.evaluate import evaluate as measure
    from energyad.model.folder import find_model

    data = (download_category if download else open_category)(category, data_root=data_root)
    detector = AnomalyDetector.load(find_model(model or category), threads=threads, runtime=runtime)
    with RichProgress() as bar:
        evaluation = measure(detector, data, progress=bar)
    if as_json:
        typer.echo(json.dumps(evaluation.to_dict(), ensure_ascii=False))
    else:
        print_evaluation(evaluation)
    if report is not None:
        from energyad.report import write_report

        write_report(report, detector, evaluation, title=f"{category} · model {detector.name}")
        console.say(f"report in {report}/: index.html, sheet.png")


def print_evaluation(evaluation: Evaluation) -> None:
    """The figures, and a row for each type of defect, on standard output."""
    interval = evaluation.image_auroc_interval
    between = "" if interval is None else f"  (95 %: {interval[0]:.3f} to {interval[1]:.3f})"
    typer.echo(f"category     {evaluation.category}, {len(evaluation.items)} test images")
    if evaluation.recognised is not None:
        typer.echo(f"recognised   {evaluation.recognised} of them as {evaluation.category}")
    typer.echo(f"image AUROC  {_figure(evaluation.image_auroc)}{between}")
    typer.echo(f"pixel AUROC  {_figure(evaluation.pixel_auroc)}  (at {evaluation.resolution} px)")
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
