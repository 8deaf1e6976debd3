"""The audit of a line: an entry for each verdict, of an image or of a part of several views, and for each label.

An entry holds the hash of the entry before, and is stored in the transaction of the row that it speaks of. Whoever
changes, removes or inserts a row breaks the chain where that row stands. Whoever can write the database can also write
the whole chain anew; against that, keep the head, which `energyad audit` prints, somewhere else: a chain that was
written anew has it no more.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Connection, Select, and_, func, insert, select
from sqlalchemy.orm import Session

from energyad.line.chain import FIRST, ChainCheck
from energyad.line.locks import Lock, one_at_a_time
from energyad.line.tables import Arrival, AuditEntry, ImageLabel, Part, Result, Stream

Action: TypeAlias = Literal["verdict", "part", "label"]

_PAGE: Final = 500
_RESULT: Final = (
    "id", "stream_id", "number", "arrival_id", "scored_at", "model_name", "model_sha256", "verdict",
    "score", "category", "error", "quarantined", "brightness", "contrast", "sharpness", "heatmap_mean",
    "line",
)  # fmt: skip
_PART: Final = (
    "id", "stream_id", "name", "number", "decided_at", "verdict", "p_value", "latency", "late", "reason",
    "line",
)  # fmt: skip
_LABEL: Final = (
    "id", "sha256", "reviewer", "revision", "label", "kind", "marks", "image", "labelled_at", "sampling",
    "model_name", "model_sha256", "model_verdict", "model_score",
)  # fmt: skip
_TABLES: Final[dict[Action, Any]] = {"verdict": Result, "part": Part, "label": ImageLabel}


def record(session: Session | Connection, action: Action, rows: Sequence[tuple[int, str]]) -> None:
    """Add entries in a transaction that writes. It must be the last lock that the transaction takes.

    Args:
        session: Of the transaction.
        action: What was stored.
        rows: Number and digest of each row, see `result_digest`, `part_digest` and `label_digest`.
    """
    if not rows:
        return
    one_at_a_time(session, Lock.AUDIT)
    latest = select(AuditEntry.entry_sha256).order_by(AuditEntry.id.desc()).limit(1)
    previous = session.scalar(latest) or FIRST
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    entries = []
    for row_id, digest in rows:
        values: dict[str, Any] = {
            "recorded_at": now,
            "action": action,
            "row_id": row_id,
            "row_sha256": digest,
            "previous": previous,
        }
        previous = _hash(list(values.values()))
        entries.append({**values, "entry_sha256": previous})
    session.execute(insert(AuditEntry), entries)


def result_digest(result: Any, image_sha256: str | None) -> str:
    """Return the digest of a result.

    Args:
        result: The row.
        image_sha256: Of the content that was scored.
    """
    return _hash([*_values(result, _RESULT), image_sha256])


def part_digest(part: Any) -> str:
    """Return the digest of a part that has its verdict."""
    return _hash(_values(part, _PART))


def label_digest(label: Any) -> str:
    """Return the digest of a label's row."""
    return _hash(_values(label, _LABEL))


def record_all(connection: Connection) -> None:
    """Add entries for the results and labels of a database that had no audit.

    Args:
        connection: Of the transaction that adds the table.
    """
    actions: tuple[Action, ...] = ("verdict", "label")  # no version without an audit had parts
    for action in actions:
        table, query, last = _TABLES[action], _query(action), 0
        while page := connection.execute(query.where(table.id > last).order_by(table.id).limit(_PAGE)).all():
            rows = [(row.id, _digest(action, row)) for row in page]
            record(connection, action, rows)
            last = rows[-1][0]


def check(session: Session, *, heads: frozenset[str] = frozenset()) -> ChainCheck:
    """Check the whole chain, and that each result and label is as it was stored.

    Args:
        session: That reads; see `Database.snapshot`.
        heads: Hashes that were printed earlier and kept elsewhere, which are looked for in the chain.
    """
    entries, previous, known = 0, FIRST, heads & {FIRST}
    for page in _pages(session):
        digests: dict[tuple[str, int], str] = {}
        for action in _TABLES:
            digests |= _digests(session, action, page)
        for entry in page:
            fault = _fault(entry, previous, digests.get((entry.action, entry.row_id)))
            if fault is not None:
                return ChainCheck(entries, previous, fault, known)
            entries, previous = entries + 1, entry.entry_sha256
            known |= heads & {previous}
    fault = _first_without_entry(session) or _first_miscount(session)
    return ChainCheck(entries, previous, fault, known)


def entry_of(session: Session, action: Action, row_id: int) -> tuple[AuditEntry | None, str | None]:
    """Return the entry of one row, and what does not fit of it: None where all does.

    Args:
        session: That reads.
        action: What was stored.
        row_id: Number of the row.
    """
    query = select(AuditEntry).where(AuditEntry.action == action, AuditEntry.row_id == row_id)
    entry = session.scalar(query)
    if entry is None:
        return None, f"the {action} {row_id} has no entry: it was inserted by another program"
    before = select(AuditEntry.entry_sha256).where(AuditEntry.id < entry.id)
    previous = session.scalar(before.order_by(AuditEntry.id.desc()).limit(1)) or FIRST
    digest = _digests(session, action, [entry]).get((action, row_id))
    return entry, _fault(entry, previous, digest)


def _fault(entry: AuditEntry, previous: str, digest: str | None) -> str | None:
    row = f"{entry.action} {entry.row_id}"
    values = [entry.recorded_at, entry.action, entry.row_id, entry.row_sha256, entry.previous]
    if entry.entry_sha256 != _hash(values):
        return f"entry {entry.id} ({row}) was changed"
    if entry.previous != previous:
        return f"entry {entry.id} ({row}) does not follow the entry before it: one between them was removed"
    if digest is None:
        return f"entry {entry.id}: the {row} was removed"
    if digest != entry.row_sha256:
        return f"entry {entry.id}: the {row} was changed"
    return None


def _pages(session: Session) -> Iterator[Sequence[AuditEntry]]:
    last = 0
    query = select(AuditEntry).order_by(AuditEntry.id).limit(_PAGE)
    while page := session.scalars(query.where(AuditEntry.id > last)).all():
        yield page
        last = page[-1].id
        session.expunge_all()


def _digests(session: Session, action: Action, entries: Iterable[AuditEntry]) -> dict[tuple[str, int], str]:
    """The digests that the rows of these entries have now."""
    table, query = _TABLES[action], _query(action)
    wanted = [entry.row_id for entry in entries if entry.action == action]
    rows = session.execute(query.where(table.id.in_(wanted))) if wanted else ()
    return {(action, row.id): _digest(action, row) for row in rows}


def _first_without_entry(session: Session) -> str | None:
    for action, table in _TABLES.items():
        has_entry = and_(AuditEntry.action == action, AuditEntry.row_id == table.id)
        query = select(table.id).outerjoin(AuditEntry, has_entry).where(AuditEntry.id.is_(None))
        if table is Part:
            query = query.where(Part.number.is_not(None))  # the others are still open
        inserted = session.scalar(query.order_by(table.id).limit(1))
        if inserted is not None:
            return f"{action} {inserted} has no entry: it was inserted by another program"
    return None


def _first_miscount(session: Session) -> str | None:
    """A results file that has fewer results than were numbered: those at the end were removed with their entries."""
    counted = select(Result.stream_id, func.count().label("count")).group_by(Result.stream_id).subquery()
    query = select(Stream.path, Stream.last_number, func.coalesce(counted.c.count, 0)).outerjoin(
        counted, counted.c.stream_id == Stream.id
    )
    for path, numbered, stored in session.execute(query.order_by(Stream.id)):
        if numbered != stored:
            return f"{path}: {numbered} verdicts were numbered, and {stored} are stored"
    return None


def _results() -> Select[Any]:
    columns = [getattr(Result, name) for name in _RESULT]
    return select(*columns, Arrival.sha256.label("image_sha256")).join(
        Arrival, Result.arrival_id == Arrival.id
    )


def _query(action: Action) -> Select[Any]:
    """What the digests of an action's rows are made of."""
    if action == "verdict":
        return _results()
    table, names = (Part, _PART) if action == "part" else (ImageLabel, _LABEL)
    return select(*(getattr(table, name) for name in names))


def _digest(action: Action, row: Any) -> str:
    if action == "verdict":
        return result_digest(row, row.image_sha256)
    return part_digest(row) if action == "part" else label_digest(row)


def _values(row: Any, names: Sequence[str]) -> list[Any]:
    values = [getattr(row, name) for name in names]
    return [
        value.astimezone(datetime.UTC).isoformat() if isinstance(value, datetime.datetime) else value
        for value in values
    ]


def _hash(values: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values, separators=(",", ":")).encode()).hexdigest()
