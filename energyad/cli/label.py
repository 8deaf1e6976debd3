"""`energyad label`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from energyad.cli import console
from energyad.cli.options import DATABASE_NAME, Debug, Field, Json, Quiet, fields_of, user_name

if TYPE_CHECKING:
    from energyad.feedback.labels import Label, Sampling

Labels: TypeAlias = Annotated[
    str,
    typer.Option("--database", metavar="FILE_OR_URL", help="That of `energyad watch`; made where absent."),
]


def label(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LABELS]",
            help="A folder, or a file of CSV, COCO, labelme, CVAT, Label Studio, Datumaro or FiftyOne; none lists "
            "what is stored.",
        ),
    ] = None,
    field: Field = None,
    database: Labels = DATABASE_NAME,
    reviewer: Annotated[
        str | None, typer.Option("--reviewer", metavar="NAME", help="Who says so; your user name by default.")
    ] = None,
    at_random: Annotated[
        bool,
        typer.Option(
            "--at-random", help="The images were drawn at random from all parts, not for their verdicts."
        ),
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="PLACE", help="Write the labels there: FILE.json is COCO, else a folder."
        ),
    ] = None,
    form: Annotated[
        str, typer.Option("--as", metavar="FORM", help="Of a folder: mvtec (images and masks) or labelme.")
    ] = "mvtec",
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Store what people say of images, or list it.

    \b
      energyad label checked/                    good/, defect/KIND/, masks in ground_truth/KIND/
      energyad label checked.csv --reviewer anna columns image, label, kind, mask
      energyad label annotations.json            COCO, labelme or Label Studio
      energyad label annotations.xml             CVAT
      energyad label export/                     a data set of Datumaro or FiftyOne
      energyad label                             list the labels
      energyad label --export labels.json        write them as COCO
      energyad label --export dataset/           images and masks as MVTec AD has them

    A label goes with the content of its image, wherever the file is moved. What one reviewer says twice is stored
    once; what he or she says otherwise replaces the label, and the history keeps both. `energyad teach` learns from
    the labels.
    """
    from energyad.feedback.importing import read_labels
    from energyad.feedback.labels import LabelStore
    from energyad.line.database import Database

    fields = fields_of(source, field)
    if export is not None:
        _export(database, export, form)
        return
    if source is None:
        with Database(database, create=False) as opened:
            _print(LabelStore(opened).current(), as_json=as_json)
        return
    name = reviewer or user_name()
    sampling: Sampling = "random" if at_random else "given"
    labels = [imported.by(name, sampling=sampling) for imported in read_labels(source, fields=fields)]
    with Database(database) as opened:
        added = LabelStore(opened).add(labels)
    counts = {"new": added.new, "changed": added.changed, "unchanged": added.unchanged}
    if as_json:
        console.echo_json(json.dumps(counts))
    console.say(f"labels    {', '.join(f'{count} {value}' for value, count in counts.items())} in {database}")


def _export(database: str, place: Path, form: str) -> None:
    from energyad.errors import SettingsError
    from energyad.feedback import exporting
    from energyad.feedback.labels import LabelStore, agreed
    from energyad.line.database import Database

    writers = {"mvtec": exporting.write_mvtec, "labelme": exporting.write_labelme}
    if form not in writers:
        raise SettingsError(f"--as {form}: give mvtec or labelme, or --export FILE.json for COCO")
    with Database(database, create=False) as opened:
        labels, differing = agreed(LabelStore(opened).current())
    if differing:
        console.warn(f"reviewers differ on {differing} images, which are left out")
    write = exporting.write_coco if place.suffix.lower() == ".json" else writers[form]
    console.say(f"exported  labels of {write(labels, place)} images to {place}")


def _print(labels: list[Label], *, as_json: bool) -> None:
    if as_json:
        for label in labels:
            console.echo_json(json.dumps(_fields(label), ensure_ascii=False))
        return
    if not labels:
        console.say("no labels; `energyad label FOLDER` stores some")
        return
    columns = ("image", "label", "kind", "marks", "reviewer", "when", "the model said")
    console.print_table(columns, [_row(label) for label in labels], right=("marks",))


def _fields(label: Label) -> dict[str, Any]:
    opinion = label.opinion
    return {
        "image": str(label.image),
        "sha256": label.sha256,
        "label": label.value,
        "kind": label.kind,
        "marks": label.marks,
        "reviewer": label.reviewer,
        "time": label.time.isoformat(timespec="seconds"),
        "sampling": label.sampling,
        "model": None if opinion is None else vars(opinion),
    }


def _row(label: Label) -> tuple[str, ...]:
    opinion = label.opinion
    verdict = "" if opinion is None else f"{opinion.verdict or 'unreadable'} ({opinion.name})"
    when = f"{label.time:%Y-%m-%d %H:%M}"
    marks = str(len(label.marks) or "")
    return str(label.image), label.value, label.kind or "", marks, label.reviewer, when, verdict
