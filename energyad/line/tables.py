"""Tables of the line's database.

A stream is one results file; its sources are the folders whose results it holds. An arrival is one file that came, a
result what a model said of it, a part what a station said of all views of a part, a delivery one result or part on its
way to one output, a label what a person said of an image. Identifiers never change, and rows of results and of labels
are never deleted or changed; the audit has an entry for each of them, see `energyad.line.audit`.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CLAIMED: Final = "claimed"
"""Of an arrival: a watcher works on it."""
SCORED: Final = "scored"
"""Of an arrival: its result is stored, and the file, which has a private name, is still to be filed."""
KEPT: Final = "kept"
"""Of an arrival: its result is stored, and the file stays where it came."""
FILED: Final = "filed"
"""Of an arrival: its result is stored, and the file lies in the folder of its verdict."""

FINE: Final = "fine"
"""Of a label: a good part."""
DEFECT: Final = "defect"
UNSURE: Final = "unsure"
WITHDRAWN: Final = "withdrawn"
"""Of a label: the reviewer took back what he or she had said."""

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
"""Of a delivery: set aside after too many tries."""


class UtcDateTime(TypeDecorator[datetime.datetime]):
    """A time in UTC. SQLite stores no time zone; PostgreSQL does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime.datetime | None, dialect: Dialect
    ) -> datetime.datetime | None:
        """To the database: in UTC."""
        return None if value is None else value.astimezone(datetime.UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime.datetime | None:
        """From the database: with the time zone UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=datetime.UTC) if value.tzinfo is None else value.astimezone(datetime.UTC)


Key = Annotated[int, mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)]
Big = Annotated[int, mapped_column(BigInteger)]
Name = Annotated[str, mapped_column(Text)]
Time = Annotated[datetime.datetime, mapped_column(UtcDateTime)]


class Base(DeclarativeBase):
    """All tables of the line."""


class SchemaVersion(Base):
    """The version of these tables; one row."""

    __tablename__ = "schema_version"

    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Stream(Base):
    """A results file. `last_number` counts its results, `last_part_number` the parts of a station; the other two say
    how far the file is written.
    """

    __tablename__ = "streams"
    __table_args__ = (UniqueConstraint("station", "path"),)

    id: Mapped[Key]
    station: Mapped[Name]
    path: Mapped[Name]
    last_number: Mapped[Big] = mapped_column(default=0)
    last_part_number: Mapped[Big] = mapped_column(default=0)
    written_number: Mapped[Big] = mapped_column(default=0)
    written_bytes: Mapped[Big] = mapped_column(default=0)


class Source(Base):
    """A watched folder of a stream."""

    __tablename__ = "sources"
    __table_args__ = (UniqueConstraint("stream_id", "folder"),)

    id: Mapped[Key]
    stream_id: Mapped[int] = mapped_column(ForeignKey("streams.id"))
    folder: Mapped[Name]


class WatcherProcess(Base):
    """A process that works for the line. `place` says where its process number means something."""

    __tablename__ = "watchers"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    place: Mapped[Name]
    process: Mapped[int]
    started: Mapped[str] = mapped_column(String(32))
    heartbeat: Mapped[float]
    ended: Mapped[bool] = mapped_column(default=False, index=True)


class Arrival(Base):
    """One file that came.

    path: below the source's folder, with /. claim: what its private name holds while it is worked on; null for a file
    that stays where it is, which is known by path, size, time of change and hash. fingerprint: device, inode, size and
    times, so that it need not be read again while nothing touched it. attempts: how often scoring it was begun.
    filed_as: where it was moved to.
    """

    __tablename__ = "arrivals"
    __table_args__ = (
        CheckConstraint(f"state IN ('{CLAIMED}', '{SCORED}', '{KEPT}', '{FILED}')", name="arrival_state"),
        Index(
            "arrival_identity",
            *("source_id", "path", "size", "mtime_ns", "sha256"),
            unique=True,
            sqlite_where=text("claim IS NULL"),
            postgresql_where=text("claim IS NULL"),
        ),
        Index(  # of files that have one: else SQLite takes it to find the many that have none
            "arrival_claim",
            "claim",
            unique=True,
            sqlite_where=text("claim IS NOT NULL"),
            postgresql_where=text("claim IS NOT NULL"),
        ),
        Index("arrival_fingerprint", "source_id", "fingerprint"),
        Index("arrival_state_of_source", "source_id", "state"),
        Index("arrival_sha256", "sha256"),
    )

    id: Mapped[Key]
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id"))
    path: Mapped[Name]
    size: Mapped[Big | None]
    mtime_ns: Mapped[Big | None]
    sha256: Mapped[str | None] = mapped_column(String(64))
    fingerprint: Mapped[Name | None]
    claim: Mapped[str | None] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    watcher_id: Mapped[str] = mapped_column(ForeignKey("watchers.id"))
    attempts: Mapped[int] = mapped_column(default=0)
    filed_as: Mapped[Name | None]


class Result(Base):
    """What a model said of an arrival. `line` is the result as JSON, the line of the results file."""

    __tablename__ = "results"
    __table_args__ = (
        UniqueConstraint("stream_id", "number"),
        Index("result_of_model", "stream_id", "model_sha256", "number"),
        Index("result_verdict", "verdict", "id"),
    )

    id: Mapped[Key]
    stream_id: Mapped[int] = mapped_column(ForeignKey("streams.id"))
    number: Mapped[Big]
    arrival_id: Mapped[int] = mapped_column(ForeignKey("arrivals.id"), unique=True)
    scored_at: Mapped[Time]
    model_name: Mapped[Name]
    model_sha256: Mapped[str] = mapped_column(String(64))
    verdict: Mapped[str | None] = mapped_column(String(16))
    score: Mapped[float | None]
    category: Mapped[Name | None]
    error: Mapped[Name | None]
    quarantined: Mapped[bool]
    brightness: Mapped[float | None]
    contrast: Mapped[float | None]
    sharpness: Mapped[float | None]
    heatmap_mean: Mapped[float | None]
    line: Mapped[Name]


class Part(Base):
    """A part of a station: one view or several. It is open, without a number, until its verdict is known.

    name: what its images have in common. number: its place among the station's verdicts. triggered_at: when its first
    image was complete; null where nobody saw it come. latency: seconds from then to the verdict. late: whether that was
    over the station's budget. line: the verdict as JSON, what outputs are told.
    """

    __tablename__ = "parts"
    __table_args__ = (
        UniqueConstraint("stream_id", "number"),
        Index("part_name", "stream_id", "name"),
    )

    id: Mapped[Key]
    stream_id: Mapped[int] = mapped_column(ForeignKey("streams.id"))
    name: Mapped[Name]
    number: Mapped[Big | None]
    triggered_at: Mapped[Time | None]
    decided_at: Mapped[Time | None]
    verdict: Mapped[str | None] = mapped_column(String(16))
    p_value: Mapped[float | None]
    latency: Mapped[float | None]
    late: Mapped[bool] = mapped_column(default=False)
    reason: Mapped[Name | None]
    line: Mapped[Name | None]


class PartView(Base):
    """An image of a part. too_late: it came after the part's verdict, and does not count. fault: why its frame cannot
    be judged.
    """

    __tablename__ = "part_views"

    id: Mapped[Key]
    part_id: Mapped[int] = mapped_column(ForeignKey("parts.id"), index=True)
    view: Mapped[Name]
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id"), unique=True)
    too_late: Mapped[bool] = mapped_column(default=False)
    fault: Mapped[str | None] = mapped_column(String(16))


class ShadowResult(Base):
    """What a candidate said of a result's image, beside the model in charge. Nothing acts on it.

    `line` is it as JSON. differs: whether its verdict is another one.
    """

    __tablename__ = "shadow_results"
    __table_args__ = (Index("shadow_differs", "differs", "result_id"),)

    id: Mapped[Key]
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id"), unique=True)
    model_name: Mapped[Name]
    model_sha256: Mapped[str] = mapped_column(String(64), index=True)
    verdict: Mapped[str | None] = mapped_column(String(16))
    score: Mapped[float | None]
    differs: Mapped[bool]
    line: Mapped[Name]


class Output(Base):
    """Where results or parts of a stream are delivered to. watcher_id: the one process that delivers."""

    __tablename__ = "outputs"
    __table_args__ = (UniqueConstraint("stream_id", "kind", "address"),)

    id: Mapped[Key]
    stream_id: Mapped[int] = mapped_column(ForeignKey("streams.id"))
    kind: Mapped[str] = mapped_column(String(16))
    address: Mapped[Name]
    last_number: Mapped[Big] = mapped_column(default=0)
    watcher_id: Mapped[str | None] = mapped_column(ForeignKey("watchers.id"))


class Delivery(Base):
    """One result or one part for one output. `number` is its place in the output's order, `key` the same in every
    try.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        CheckConstraint(f"state IN ('{PENDING}', '{DELIVERED}', '{DEAD}')", name="delivery_state"),
        UniqueConstraint("output_id", "number"),
        CheckConstraint("(result_id IS NULL) <> (part_id IS NULL)", name="delivery_of_one"),
        UniqueConstraint("output_id", "result_id"),
        UniqueConstraint("output_id", "part_id"),
        Index("delivery_queue", "output_id", "state", "number"),
    )

    id: Mapped[Key]
    output_id: Mapped[int] = mapped_column(ForeignKey("outputs.id"))
    number: Mapped[Big]
    result_id: Mapped[int | None] = mapped_column(ForeignKey("results.id"), index=True)
    part_id: Mapped[int | None] = mapped_column(ForeignKey("parts.id"), index=True)
    key: Mapped[str] = mapped_column(String(36))
    state: Mapped[str] = mapped_column(String(16), default=PENDING)
    attempts: Mapped[int] = mapped_column(default=0)
    first_tried: Mapped[Time | None]
    last_tried: Mapped[Time | None]
    last_error: Mapped[Name | None]


class ImageLabel(Base):
    """What a reviewer said of an image, and what a model had said of it by then.

    sha256: of the image file's content, by which a label follows a file that moves. revision: counts what one reviewer
    said of one image; the highest is what counts, the others are history. marks: polygons around the defects as JSON,
    each a list of [x, y] in pixels of the image. sampling: why the image was looked at, see `energyad.feedback.labels`.
    """

    __tablename__ = "labels"
    __table_args__ = (
        CheckConstraint(f"label IN ('{FINE}', '{DEFECT}', '{UNSURE}', '{WITHDRAWN}')", name="label_value"),
        UniqueConstraint("sha256", "reviewer", "revision"),
    )

    id: Mapped[Key]
    sha256: Mapped[str] = mapped_column(String(64))
    reviewer: Mapped[Name]
    revision: Mapped[int]
    label: Mapped[str] = mapped_column(String(16))
    kind: Mapped[Name | None]
    marks: Mapped[Name]
    image: Mapped[Name]
    labelled_at: Mapped[Time]
    sampling: Mapped[str] = mapped_column(String(16))
    model_name: Mapped[Name | None]
    model_sha256: Mapped[str | None] = mapped_column(String(64))
    model_verdict: Mapped[str | None] = mapped_column(String(16))
    model_score: Mapped[float | None]


class AuditEntry(Base):
    """One entry of the audit: a row that was stored, and the hash of the entry before; see `energyad.line.audit`.

    action: what was stored, which names the table of row_id. row_sha256: of that row's content. previous: entry_sha256
    of the entry before; it is unique, so that the database itself refuses a second entry after the same one.
    """

    __tablename__ = "audit"
    __table_args__ = (UniqueConstraint("action", "row_id"), UniqueConstraint("previous"))

    id: Mapped[Key]
    recorded_at: Mapped[str] = mapped_column(String(32))
    action: Mapped[str] = mapped_column(String(16))
    row_id: Mapped[Big]
    row_sha256: Mapped[str] = mapped_column(String(64))
    previous: Mapped[str] = mapped_column(String(64))
    entry_sha256: Mapped[str] = mapped_column(String(64))
