"""Why a part got its verdict: the result as it was stored, the version of the model, what people said of it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from energyad.errors import DataError
from energyad.feedback.labels import Label, LabelStore
from energyad.line import audit
from energyad.line.database import Database
from energyad.line.journal import JournalLine
from energyad.line.tables import Arrival, Result, Source, Stream
from energyad.model.folder import file_hash


@dataclass(frozen=True, kw_only=True)
class PartVerdict:
    """A verdict with all that is stored around it.

    Attributes:
        id: Of the result.
        station: That scored it.
        scored_at: When.
        image: Where the file lies.
        sha256: Of its content; None where it could not be read.
        result: What the model said.
        entry: Number of its entry in the audit; None where there is none.
        fault: Why result and entry do not fit, in one line; None where they do.
        labels: What reviewers said, oldest first: the reviewer, and the label or None for a withdrawal.
    """

    id: int
    station: str
    scored_at: datetime.datetime
    image: Path
    sha256: str | None
    result: JournalLine
    entry: int | None
    fault: str | None
    labels: tuple[tuple[str, Label | None], ...]


def find_part(database: Database, what: str) -> PartVerdict:
    """Find the latest verdict of a part.

    Args:
        database: The line's.
        what: The number of a result, an image file, or the path by which the result knows it.

    Raises:
        DataError: There is no such result.
    """
    with database.read() as session:
        row = session.execute(_query().where(Result.id == _number(session, database, what))).one()
        result, arrival, folder, station = row
        entry, fault = audit.entry_of(session, "verdict", result.id)
    image = Path(folder) / arrival.path if arrival.filed_as is None else Path(arrival.filed_as).absolute()
    return PartVerdict(
        id=result.id,
        station=station,
        scored_at=result.scored_at,
        image=image,
        sha256=arrival.sha256 or None,
        result=JournalLine.model_validate_json(result.line),
        entry=None if entry is None else entry.id,
        fault=fault,
        labels=tuple(LabelStore(database).history(arrival.sha256)) if arrival.sha256 else (),
    )


def _query() -> Select[Result, Arrival, str, str]:
    return (
        select(Result, Arrival, Source.folder, Stream.station)
        .join(Arrival, Result.arrival_id == Arrival.id)
        .join(Source, Arrival.source_id == Source.id)
        .join(Stream, Result.stream_id == Stream.id)
    )


def _number(session: Session, database: Database, what: str) -> int:
    """The latest result of a part."""
    by_part = select(Result.id).join(Arrival, Result.arrival_id == Arrival.id).order_by(Result.id.desc())
    path, found = Path(what), None
    if what.isascii() and what.isdigit() and not path.is_file():
        found = session.scalar(by_part.where(Result.id == int(what)))
    elif path.is_file():
        found = session.scalar(by_part.where(Arrival.sha256 == file_hash(path)).limit(1))
    else:
        named = (Arrival.path == what) | (Arrival.filed_as == what) | (Arrival.path == path.name)
        found = session.scalar(by_part.where(named).limit(1))
    if found is None:
        raise DataError(
            f"{database.name}: no verdict of {what}; give an image that was scored, or its number"
        )
    return found
