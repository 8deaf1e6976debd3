"""`energyad teach` and `energyad extend`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import DATABASE_NAME, Debug, Json, Model, Quiet, Threads

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.feedback.labels import Label
    from energyad.model.manifest import Teaching


def teach(
    model: Model = None,
    labels: Annotated[
        str,
        typer.Option(
            "--labels", metavar="DATABASE_OR_SOURCE", help="A line's database, or what `label` reads."
        ),
    ] = DATABASE_NAME,
    good: Annotated[
        list[str] | None,
        typer.Option(
            "--good", metavar="IMAGES", help="Good parts for the threshold: the fit's own, or new ones."
        ),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Let a model learn from labels: a candidate beside it, in seconds.

    \b
      energyad teach --model gasket --good good_parts/
      energyad teach --model gasket --labels checked/ --good good_parts/
      energyad promote gasket

    False alarms that were labelled as good become part of the memory banks. Marked defects raise the energy of patches
    like them; of a defect without marks the strangest patches do. The table is cross-validated: each image is judged by
    a model that did not learn from it. The threshold is set anew on good parts that taught nothing, which --good
    gives: of the fit's own images those are taken that were held out. Without defects the old threshold holds.
    """
    from energyad.cli.progress import RichProgress
    from energyad.detector import AnomalyDetector
    from energyad.extras import require
    from energyad.feedback.versions import faults, put_candidate
    from energyad.images.finding import find_images
    from energyad.model.folder import find_model

    require("fit", "teaching")
    from energyad.feedback.teaching import teach as teach_model

    folder = find_model(model)
    detector = AnomalyDetector.load(folder, threads=threads)
    said = _read_labels(labels)
    with RichProgress() as progress:
        taught = teach_model(
            detector, said, find_images(good) if good else (), threads=threads, progress=progress
        )
    candidate = put_candidate(folder, taught.manifest, taught.contents, action="taught")
    teaching = taught.manifest.teaching
    assert teaching is not None
    if as_json:
        console.echo_json(teaching.model_dump_json())
    else:
        _print(teaching)
    _say_thresholds(detector, taught)
    _say_next(candidate, folder, faults(folder))


def extend(
    sources: Annotated[
        list[str], typer.Argument(metavar="IMAGES", help="New good parts: files, folders, globs.")
    ],
    model: Model = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Let a model know new good parts too, without a new fit: a candidate beside it, in seconds.

    \b
      energyad extend good_of_today/ --model gasket
      energyad promote gasket

    For parts of a new supplier, a second cavity or another lamp. Nothing is forgotten: no energy grows, and the
    threshold never falls.
    """
    from energyad.cli.progress import RichProgress
    from energyad.detector import AnomalyDetector
    from energyad.extras import require
    from energyad.feedback.versions import faults, put_candidate
    from energyad.images.finding import find_images
    from energyad.model.folder import find_model

    require("fit", "extending a model")
    from energyad.feedback.teaching import extend as extend_model

    folder = find_model(model)
    detector = AnomalyDetector.load(folder, threads=threads)
    paths = find_images(sources)
    with RichProgress() as progress:
        extended = extend_model(detector, paths, threads=threads, progress=progress)
    rejected = [_count_rejected(one, paths) for one in (detector, extended)]
    candidate = put_candidate(folder, extended.manifest, extended.contents, action="extended")
    if as_json:
        fields = {"images": len(paths), "rejected_before": rejected[0], "rejected_after": rejected[1]}
        console.echo_json(json.dumps(fields))
    console.say(f"rejected   {rejected[0]} of these {len(paths)} images before, {rejected[1]} after")
    _say_thresholds(detector, extended)
    _say_next(candidate, folder, faults(folder))


def _read_labels(source: str) -> list[Label]:
    from energyad.errors import DataError
    from energyad.feedback.importing import read_labels
    from energyad.feedback.labels import LabelStore
    from energyad.line.database import Database
    from energyad.line.journal import is_database

    if is_database(source):
        with Database(source, create=False) as database:
            return LabelStore(database).current()
    if not Path(source).exists():
        raise DataError(f"{source}: no such labels; give --labels, or store some with `energyad label`")
    return [imported.by("") for imported in read_labels(Path(source))]


def _print(teaching: Teaching) -> None:
    rows = [
        (row.kind or "(no name)", str(row.images), f"{row.before}", f"{row.after}") for row in teaching.kinds
    ]
    alarms = teaching.false_alarms
    if alarms is not None:
        rows.append(("good parts", str(alarms.images), f"{alarms.before}", f"{alarms.after}"))
    console.print_table(
        ("kind", "images", "ng before", "ng after"), rows, right=("images", "ng before", "ng after")
    )


def _say_thresholds(before: AnomalyDetector, after: AnomalyDetector) -> None:
    console.say(f"\nthreshold  {before.threshold:.4g} before, {after.threshold:.4g} after")
    console.say(f"           {after.calibration.guarantee()}")


def _say_next(candidate: Path, folder: Path, reasons: list[str]) -> None:
    console.say(f"candidate  {candidate}")
    for reason in reasons:
        console.warn(reason)
    force = " --force" if reasons else ""
    console.say(
        f"next       energyad evaluate --model {candidate}, then: energyad promote {folder.name}{force}"
    )


def _count_rejected(detector: AnomalyDetector, paths: list[Path]) -> int:
    return sum(image.require().prediction.verdict == "ng" for image in detector.score_images(paths))
