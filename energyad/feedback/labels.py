"""Labels of images by people: stored in the line's database with the audit, nothing ever changed or deleted."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from energyad.errors import ImageError
from energyad.feedback.marks import Polygon
from energyad.images.decoding import DEFAULT_MAX_PIXELS, largest_file
from energyad.line import audit
from energyad.line.database import Database
from energyad.line.incoming import hash_file
from energyad.line.locks import one_at_a_time
from energyad.line.tables import WITHDRAWN, Arrival, ImageLabel, Result

LabelValue: TypeAlias = Literal["fine", "defect", "unsure"]
Sampling: TypeAlias = Literal["given", "alarm", "shadow", "random"]
"""Why a person looked at the image: it was given to energyad with its label, the model had not called it ok, a
candidate in the shadow had called it otherwise, or it was drawn at random from all parts. Only images that were drawn
at random are like the parts of the line."""

UNNAMED: Final = "defect"
"""In files: the kind of a defect that nobody named."""

_CHUNK: Final = 500
"""Hashes in one query; databases limit the parameters of a statement."""


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, kw_only=True)
class ModelOpinion:
    """What a model had said of an image when a person labelled it.

    Attributes:
        name: Of the model.
        sha256: Of its graph, hexadecimal.
        verdict: ok, review or ng; None where the image could not be scored.
        score: Energy of the image, likewise.
    """

    name: str
    sha256: str
    verdict: str | None
    score: float | None


@dataclass(frozen=True, kw_only=True)
class Label:
    """What one reviewer says of one image.

    Attributes:
        image: The file, where it was when it was labelled.
        sha256: Of its content, hexadecimal.
        value: "fine" for a good part, "defect", or "unsure".
        reviewer: Who says so.
        kind: Of the defect; None where it was not named.
        marks: Where the defects are; none where they were not marked.
        sampling: Why the image was looked at.
        opinion: What a model had said; None where none had.
        time: When it was said.
    """

    image: Path
    sha256: str
    value: LabelValue
    reviewer: str
    kind: str | None = None
    marks: tuple[Polygon, ...] = ()
    sampling: Sampling = "given"
    opinion: ModelOpinion | None = None
    time: datetime.datetime = field(default_factory=_now)

    def says_the_same_as(self, other: Label) -> bool:
        """Whether the other label holds nothing new: label, kind and marks are equal."""
        return (self.value, self.kind, self.marks) == (other.value, other.kind, other.marks)


@dataclass(frozen=True)
class Added:
    """What became of labels that were given.

    Attributes:
        new: Labels of images that their reviewer had not labelled.
        changed: Labels that replace what their reviewer had said. What was said before stays in the history.
        unchanged: Labels that say what their reviewer had said, and were not stored again.
    """

    new: int = 0
    changed: int = 0
    unchanged: int = 0


class LabelStore:
    """The labels in a line's database.

    Args:
        database: The line's.

    Example:
        >>> with Database("energyad.db") as database:
        ...     LabelStore(database).add([Label(image=path, sha256=digest, value="fine", reviewer="anna")])
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, labels: Iterable[Label]) -> Added:
        """Store labels, all or none. What a reviewer has said already is not stored again.

        A label without a model's opinion gets that of the latest result of the same file.

        Args:
            labels: In the order in which they were given.
        """
        given, entries = list(labels), []
        counts = {"new": 0, "changed": 0, "unchanged": 0}
        with self.database.write() as session:
            one_at_a_time(session)
            opinions = _opinions(session, {label.sha256 for label in given if label.opinion is None})
            for label in given:
                latest = _latest(session, label.sha256, label.reviewer)
                if latest is not None and _counts(latest) and label.says_the_same_as(_label(latest)):
                    counts["unchanged"] += 1
                    continue
                counts["new" if latest is None else "changed"] += 1
                opinion = label.opinion or opinions.get(label.sha256)
                revision = 0 if latest is None else latest.revision + 1
                row = _row(replace(label, opinion=opinion), revision)
                session.add(row)
                session.flush()
                entries.append((row.id, audit.label_digest(row)))
            audit.record(session, "label", entries)
        return Added(**counts)

    def withdraw(self, sha256: str, reviewer: str) -> bool:
        """Take back what a reviewer said of an image; the history keeps it.

        Args:
            sha256: Of the image file.
            reviewer: Whose label it is.

        Returns:
            Whether there was a label to take back.
        """
        with self.database.write() as session:
            one_at_a_time(session)
            latest = _latest(session, sha256, reviewer)
            if latest is None or not _counts(latest):
                return False
            row = _row(replace(_label(latest), kind=None, marks=(), time=_now()), latest.revision + 1)
            row.label = WITHDRAWN
            session.add(row)
            session.flush()
            audit.record(session, "label", [(row.id, audit.label_digest(row))])
        return True

    def current(self) -> list[Label]:
        """Return the latest label of each image by each reviewer, in the order in which they were stored."""
        highest = (
            select(ImageLabel.sha256, ImageLabel.reviewer, func.max(ImageLabel.revision).label("revision"))
            .group_by(ImageLabel.sha256, ImageLabel.reviewer)
            .subquery()
        )
        query = (
            select(ImageLabel)
            .join(
                highest,
                (ImageLabel.sha256 == highest.c.sha256)
                & (ImageLabel.reviewer == highest.c.reviewer)
                & (ImageLabel.revision == highest.c.revision),
            )
            .where(ImageLabel.label != WITHDRAWN)
            .order_by(ImageLabel.id)
        )
        with self.database.read() as session:
            return [_label(row) for row in session.scalars(query)]

    def history(self, sha256: str) -> list[tuple[str, Label | None]]:
        """Return all that was said of an image, oldest first: the reviewer, and the label or None for a withdrawal."""
        query = select(ImageLabel).where(ImageLabel.sha256 == sha256).order_by(ImageLabel.id)
        with self.database.read() as session:
            return [(row.reviewer, _label(row) if _counts(row) else None) for row in session.scalars(query)]


def is_unchanged(image: Path, sha256: str) -> bool:
    """Whether a file is still what a label or a result speaks of; no other image under its name is taken for it.

    Args:
        image: The file.
        sha256: Of the content that was labelled or scored.
    """
    try:
        return hash_file(image, max_bytes=largest_file(DEFAULT_MAX_PIXELS)).sha256 == sha256
    except ImageError:
        return False


def agreed(labels: Iterable[Label]) -> tuple[list[Label], int]:
    """Return one label for each image on which its reviewers agree, and the number of images on which they do not.

    Those who are unsure do not count. The latest label of an image says what is wrong and where, or the latest one
    that marks something.

    Args:
        labels: Of any images by any reviewers.
    """
    by_image: dict[str, list[Label]] = {}
    for label in labels:
        if label.value != "unsure":
            by_image.setdefault(label.sha256, []).append(label)
    chosen: list[Label] = []
    for opinions in by_image.values():
        if len({label.value for label in opinions}) == 1:
            chosen.append(max(opinions, key=lambda label: (bool(label.marks), label.time)))
    return chosen, len(by_image) - len(chosen)


def _counts(row: ImageLabel) -> bool:
    return row.label != WITHDRAWN


def _latest(session: Session, sha256: str, reviewer: str) -> ImageLabel | None:
    query = select(ImageLabel).where(ImageLabel.sha256 == sha256, ImageLabel.reviewer == reviewer)
    return session.scalar(query.order_by(ImageLabel.revision.desc()).limit(1))


def _opinions(session: Session, digests: set[str]) -> Mapping[str, ModelOpinion]:
    """What the latest results of files of these hashes say."""
    opinions: dict[str, ModelOpinion] = {}
    wanted = sorted(digests)
    for start in range(0, len(wanted), _CHUNK):
        query = (
            select(Arrival.sha256, Result.model_name, Result.model_sha256, Result.verdict, Result.score)
            .join(Result, Result.arrival_id == Arrival.id)
            .where(Arrival.sha256.in_(wanted[start : start + _CHUNK]))
            .order_by(Result.id)
        )
        for digest, name, model_sha256, verdict, score in session.execute(query):
            opinions[str(digest)] = ModelOpinion(name=name, sha256=model_sha256, verdict=verdict, score=score)
    return opinions


def _row(label: Label, revision: int) -> ImageLabel:
    opinion = label.opinion
    return ImageLabel(
        sha256=label.sha256,
        reviewer=label.reviewer,
        revision=revision,
        label=label.value,
        kind=label.kind,
        marks=json.dumps(label.marks, separators=(",", ":")),
        image=str(label.image).encode("utf-8", "backslashreplace").decode(),
        labelled_at=label.time,
        sampling=label.sampling,
        model_name=None if opinion is None else opinion.name,
        model_sha256=None if opinion is None else opinion.sha256,
        model_verdict=None if opinion is None else opinion.verdict,
        model_score=None if opinion is None else opinion.score,
    )


def _label(row: ImageLabel) -> Label:
    opinion = None
    if row.model_name is not None and row.model_sha256 is not None:
        opinion = ModelOpinion(
            name=row.model_name, sha256=row.model_sha256, verdict=row.model_verdict, score=row.model_score
        )
    marks = tuple(tuple((x, y) for x, y in polygon) for polygon in json.loads(row.marks))
    return Label(
        image=Path(row.image),
        sha256=row.sha256,
        value=cast(LabelValue, row.label),
        reviewer=row.reviewer,
        kind=row.kind,
        marks=marks,
        sampling=cast(Sampling, row.sampling),
        opinion=opinion,
        time=row.labelled_at,
    )
