"""`energyad audit`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from energyad.cli import console
from energyad.cli.options import DATABASE_NAME, Debug, Json, Quiet, Threads
from energyad.errors import SettingsError

if TYPE_CHECKING:
    from energyad.feedback.nearest import GoodPatch, Neighbours
    from energyad.feedback.parts import PartVerdict
    from energyad.line.chain import ChainCheck
    from energyad.model.manifest import Manifest

DOES_NOT_FIT: Final = 1
MAX_REGIONS: Final = 5


def audit(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[part IMAGE_OR_NUMBER]", help="Why this part got its verdict."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            "--database", metavar="FILE_OR_URL", help=f"That of `energyad watch`; {DATABASE_NAME} by default."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME_OR_DIR",
            help="Whose history is checked; all under models/ by default.",
        ),
    ] = None,
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head", metavar="HASH", help="That was printed earlier: the chain must still hold it."
        ),
    ] = None,
    good: Annotated[
        list[str] | None,
        typer.Option(
            "--good", metavar="IMAGES", help="Of good parts, to show the nearest of them to the part."
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Draw the nearest good patches there, as PNG."),
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Check that nothing that was recorded was changed since, or tell why a part got its verdict.

    \b
      energyad audit
      energyad audit --head 5f2c9d...
      energyad audit part incoming/000.png
      energyad audit part 17 --good good_parts/ --picture why.png

    Each verdict and each label has an entry in the line's database that holds the hash of the entry before; so has each
    fit, calibration, teaching and promotion in the history of its model. The first entry that does not fit is named.
    Keep the heads that are printed elsewhere, and give them with --head: they tell a chain that was written anew.

    \b
    Exit status: 0  all is as it was recorded
                 1  something was changed, removed or inserted
                 2  an error
    """
    if words is not None:
        if len(words) != 2 or words[0] != "part":
            raise SettingsError(
                f"{' '.join(words)}: give `part` and an image or the number of a result, or nothing"
            )
        _explain(words[1], database or DATABASE_NAME, model, good, picture, threads=threads, as_json=as_json)
        return
    if good or picture is not None:
        raise SettingsError("--good and --picture belong to `energyad audit part IMAGE`")
    heads = frozenset(head or [])
    chains = _check(database, model, heads)
    if as_json:
        for name, chain in chains:
            fields = {"chain": name, "entries": chain.entries, "head": chain.head, "fault": chain.fault}
            console.echo_json(json.dumps(fields, ensure_ascii=False))
    else:
        rows = [
            (name, str(chain.entries), chain.head, "fits" if chain.fault is None else "does not fit")
            for name, chain in chains
        ]
        console.print_table(("chain", "entries", "head", ""), rows, right=("entries",))
    known = frozenset[str]().union(*(chain.known_heads for _, chain in chains))
    faults = [chain.fault for _, chain in chains if chain.fault is not None]
    faults += [
        f"{lost}: no chain has this head any more; one was written anew or shortened"
        for lost in heads - known
    ]
    for fault in faults:
        console.fail(fault)
    if faults:
        raise typer.Exit(DOES_NOT_FIT)


def _check(database: str | None, model: str | None, heads: frozenset[str]) -> list[tuple[str, ChainCheck]]:
    """Check the database and the histories of models."""
    from energyad.errors import DataError
    from energyad.feedback import versions
    from energyad.line import audit as line_audit
    from energyad.line.database import Database
    from energyad.model.folder import DEFAULT_FOLDER, find_model, list_models

    chains: list[tuple[str, ChainCheck]] = []
    if database is not None or Path(DATABASE_NAME).exists():
        with Database(database or DATABASE_NAME, create=False) as opened, opened.snapshot() as session:
            chains.append((opened.name, line_audit.check(session, heads=heads)))
    folders = [find_model(model)] if model is not None else list_models()
    for folder in folders:
        if model is not None or versions.has_history(folder):
            chains.append((str(folder), versions.check(folder, heads=heads)))
    if not chains:
        raise DataError(
            f"no {DATABASE_NAME} and no history under {DEFAULT_FOLDER}/; give --database or --model"
        )
    return chains


def _explain(
    what: str,
    database: str,
    model: str | None,
    good: list[str] | None,
    picture: Path | None,
    *,
    threads: int | None,
    as_json: bool,
) -> None:
    from energyad.errors import ModelError
    from energyad.feedback import versions
    from energyad.feedback.parts import find_part
    from energyad.line.database import Database
    from energyad.model.folder import find_model, read_manifest

    with Database(database, create=False) as opened:
        part = find_part(opened, what)
    folder = version = manifest = None
    try:
        folder = find_model(model or part.result.model.name)
        version = versions.find_version(folder, part.result.model)
        manifest = None if version is None else read_manifest(version[1])
    except ModelError as error:
        if model is not None:
            raise
        console.warn(f"{error}; the version that scored the part cannot be named")
    found: list[Neighbours] = []
    if good:
        if folder is None or version is None:
            raise ModelError("the version that scored the part is not kept; nothing can be compared by it")
        found = _nearest(version[1], part, good, picture, threads=threads)
    elif picture is not None:
        raise SettingsError("--picture: give images of good parts with --good")
    if as_json:
        console.echo_json(json.dumps(_fields(part, version, found), ensure_ascii=False))
    else:
        _print(part, version, manifest, folder, found)


def _nearest(
    folder: Path, part: PartVerdict, good: list[str], picture: Path | None, *, threads: int | None
) -> list[Neighbours]:
    from energyad.cli.progress import RichProgress
    from energyad.detector import AnomalyDetector
    from energyad.errors import DataError
    from energyad.extras import require
    from energyad.feedback.labels import is_unchanged
    from energyad.images.finding import find_images

    require("fit", "comparing a part with good ones")
    from energyad.feedback.nearest import nearest_good

    if part.sha256 is None or not is_unchanged(part.image, part.sha256):
        raise DataError(f"{part.image}: is not there, or not what was scored; it cannot be compared")
    detector = AnomalyDetector.load(folder, threads=threads)
    polygons = [tuple(region.polygon) for region in part.result.regions]
    with RichProgress() as progress:
        found = nearest_good(
            detector, part.image, polygons, find_images(good), threads=threads, progress=progress
        )
    if picture is not None:
        from energyad.images.reading import write_png
        from energyad.report.neighbours import draw_neighbours

        title = f"{part.image.name}: {part.result.verdict}, {part.result.score:.4g}"
        white_level = detector.manifest.input.white_level
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_png(picture, draw_neighbours(found, title=title, white_level=white_level))
    return found


def _print(
    part: PartVerdict,
    version: tuple[str, Path] | None,
    manifest: Manifest | None,
    folder: Path | None,
    found: list[Neighbours],
) -> None:
    from energyad.scoring.results import named_kind

    result = part.result
    lines = [
        ("part", f"{part.image}, result {part.id} of station {part.station}"),
        ("scored", f"{part.scored_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("verdict", _verdict(part)),
        ("model", _model(part, version, manifest, folder)),
    ]
    for number, region in enumerate(result.regions[:MAX_REGIONS], start=1):
        box = region.box
        where = f"{box.width} x {box.height} px at {box.x}, {box.y}; {region.area} px"
        kind = f"; {named_kind(region)}" if region.kind else ""
        lines.append(
            (f"region {number}", f"{where}; peak {region.peak:.4g}, p-value {region.p_value:.2g}{kind}")
        )
    if len(result.regions) > MAX_REGIONS:
        lines.append(("", f"and {len(result.regions) - MAX_REGIONS} more"))
    for reviewer, label in part.labels:
        said = "withdrawn" if label is None else f"{label.value}{f' ({label.kind})' if label.kind else ''}"
        lines.append(("label", f"{said}, by {reviewer}"))
    for number, neighbours in enumerate(found, start=1):
        for near in neighbours.good:
            name = f"{near.patch.image!s} at {near.patch.left}, {near.patch.top}"
            fitted = "" if near.is_fitted else ", which was not in the fit"
            lines.append((f"near {number}", f"{name}: distance {near.distance:.3g}{fitted}"))
    if not found:
        lines.append(
            ("near", "the model keeps good patches, not their images; --good GOOD_PARTS shows the nearest")
        )
    fits = f"entry {part.entry} of the audit fits" if part.fault is None else part.fault
    lines.append(("audit", fits))
    typer.echo("\n".join(console.printable(f"{name:<10} {text}") for name, text in lines))


def _verdict(part: PartVerdict) -> str:
    result = part.result
    if result.score is None or result.verdict is None:
        return f"none: {result.error}"
    above = "above" if result.verdict == "ng" else "not above"
    text = f"{result.verdict}: score {result.score:.4g}, {above} the threshold {result.threshold:.4g}"
    if result.verdict == "review" and result.review_threshold is not None:
        text += f", above that for review, {result.review_threshold:.4g}"
    return f"{text}; p-value {result.p_value:.2g}"


def _model(
    part: PartVerdict, version: tuple[str, Path] | None, manifest: Manifest | None, folder: Path | None
) -> str:
    from energyad.feedback.versions import lesson_of

    reference = part.result.model
    named = f"{reference.name}, graph {reference.sha256[:16]}, calibrated {reference.calibrated}"
    if version is None or manifest is None:
        return f"{named}; this version is not kept"
    where = "in charge" if version[1] == folder else f"kept in {version[1]}"
    lesson = lesson_of(manifest)
    return f"{named}: version {version[0]}, {where}{f'; learned from {lesson}' if lesson else ''}"


def _near(near: GoodPatch) -> dict[str, Any]:
    return {
        **asdict(near.patch),
        "image": str(near.patch.image),
        "distance": near.distance,
        "fitted": near.is_fitted,
    }


def _fields(part: PartVerdict, version: tuple[str, Path] | None, found: list[Neighbours]) -> dict[str, Any]:
    return {
        "id": part.id,
        "station": part.station,
        "scored_at": part.scored_at.isoformat(),
        "image": str(part.image),
        "sha256": part.sha256,
        "version": None if version is None else version[0],
        "result": json.loads(part.result.json_line()),
        "labels": [
            {
                "reviewer": reviewer,
                "label": None if label is None else label.value,
                "kind": label and label.kind,
            }
            for reviewer, label in part.labels
        ],
        "nearest": [[_near(near) for near in region.good] for region in found],
        "entry": part.entry,
        "fault": part.fault,
    }
