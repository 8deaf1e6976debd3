"""What deserves a person's look, as long as it has no label: results that are not ok, those on which a candidate in the
shadow differs, and a random share of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import ColumnElement, Select, func, select

from energyad.errors import DataError
from energyad.feedback.labels import Added, Label, LabelStore, LabelValue, ModelOpinion, Sampling
from energyad.feedback.marks import Polygon
from energyad.line.database import Database
from energyad.line.tables import WITHDRAWN, Arrival, ImageLabel, Result, ShadowResult, Source

RANDOM_BELOW: Final = "0d"
"""Images whose hash begins with less are the random sample, 5 % of all: chance chose them, whatever the model said."""

_REASONS: Final = (
    Result.verdict == "ng",
    Result.verdict == "review",
    Arrival.sha256 < RANDOM_BELOW,
    Result.id.in_(select(ShadowResult.result_id).where(ShadowResult.differs)),
)


@dataclass(frozen=True, kw_only=True)
class QueueItem:
    """A result that waits for a label.

    Attributes:
        id: Of the result.
        image: Where the file lies.
        sha256: Of its content.
        sampling: Why it deserves a look.
        opinion: What the model said.
        line: The result as JSON.
        shadow: What a candidate in the shadow said, as JSON; None where none scored it.
    """

    id: int
    image: Path
    sha256: str
    sampling: Sampling
    opinion: ModelOpinion
    line: str
    shadow: str | None = None


class ReviewQueue:
    """The results of a line that wait for a label, those that came last first.

    Args:
        database: The line's.
        models: Names of the models whose results are asked for; all where empty.
    """

    def __init__(self, database: Database, *, models: tuple[str, ...] = ()) -> None:
        self.database, self.models = database, models
        self.labels = LabelStore(database)

    def waiting(self, reviewer: str, *, limit: int = 20) -> list[QueueItem]:
        """Return results that this reviewer has not labelled.

        Args:
            reviewer: Who reviews.
            limit: At the most.
        """
        found: set[int] = set()
        with self.database.read() as session:
            for deserves_a_look in _REASONS:  # one by one: each has an index
                found.update(session.scalars(self._waiting(reviewer, deserves_a_look, limit)))
            latest_ones = sorted(found, reverse=True)[:limit]
            rows = session.execute(self._results().where(Result.id.in_(latest_ones))).all()
        items = [_item(*row) for row in rows]
        return sorted(items, key=lambda item: -item.id)

    def item(self, result_id: int) -> QueueItem:
        """Return one result. Raises DataError where there is none of this number."""
        with self.database.read() as session:
            row = session.execute(self._results().where(Result.id == result_id)).one_or_none()
            if row is None:
                raise DataError(f"{self.database.name}: no result {result_id} to label")
            return _item(*row)

    def label(
        self,
        item: QueueItem,
        *,
        reviewer: str,
        value: LabelValue,
        kind: str | None,
        marks: tuple[Polygon, ...],
    ) -> Added:
        """Store what a reviewer says of a result's image; see `LabelStore.add`.

        Args:
            item: The result.
            reviewer: Who says so.
            value: fine, defect or unsure.
            kind: Of a defect; None where it was not named.
            marks: Where a defect is.
        """
        label = Label(
            image=item.image,
            sha256=item.sha256,
            value=value,
            reviewer=reviewer,
            kind=kind if value == "defect" else None,
            marks=marks if value == "defect" else (),
            sampling=item.sampling,
            opinion=item.opinion,
        )
        return self.labels.add([label])

    def withdraw(self, item: QueueItem, *, reviewer: str) -> bool:
        """Take back a label; the result waits again."""
        return self.labels.withdraw(item.sha256, reviewer)

    def kinds(self) -> list[str]:
        """Return the kinds of defects that were named, the most frequent first."""
        query = (
            select(ImageLabel.kind)
            .where(ImageLabel.kind.is_not(None))
            .group_by(ImageLabel.kind)
            .order_by(func.count().desc(), ImageLabel.kind)
        )
        with self.database.read() as session:
            return [kind for kind in session.scalars(query) if kind is not None]

    def _waiting(self, reviewer: str, deserves_a_look: ColumnElement[bool], limit: int) -> Select[int]:
        """Numbers of the latest results that deserve a look and that this reviewer has not labelled.

        Labels are looked up for one result after another, until there are enough. OFFSET 0 keeps PostgreSQL from
        looking them up for all images first: it takes any such condition to leave one image in 200.
        """
        results = self._results().where(deserves_a_look).with_only_columns(Result.id, Arrival.sha256)
        candidates = results.order_by(Result.id.desc()).offset(0).subquery()
        latest = (
            select(ImageLabel.label)
            .where(ImageLabel.sha256 == candidates.c.sha256, ImageLabel.reviewer == reviewer)
            .order_by(ImageLabel.revision.desc())
            .limit(1)
            .scalar_subquery()
        )
        is_waiting = func.coalesce(latest, WITHDRAWN) == WITHDRAWN
        return select(candidates.c.id).where(is_waiting).order_by(candidates.c.id.desc()).limit(limit)

    def _results(self) -> Select[Result, Arrival, str, str | None]:
        query = (
            select(Result, Arrival, Source.folder, ShadowResult.line)
            .join(Arrival, Result.arrival_id == Arrival.id)
            .join(Source, Arrival.source_id == Source.id)
            .outerjoin(ShadowResult, ShadowResult.result_id == Result.id)
            .where(Arrival.sha256.is_not(None), Result.error.is_(None))
        )
        return query.where(Result.model_name.in_(self.models)) if self.models else query


def _item(result: Result, arrival: Arrival, folder: str, shadow: str | None) -> QueueItem:
    digest = arrival.sha256 or ""
    return QueueItem(
        id=result.id,
        image=Path(folder) / arrival.path if arrival.filed_as is None else Path(arrival.filed_as).absolute(),
        sha256=digest,
        sampling=_sampling(result, digest),
        opinion=ModelOpinion(
            name=result.model_name, sha256=result.model_sha256, verdict=result.verdict, score=result.score
        ),
        line=result.line,
        shadow=shadow,
    )


def _sampling(result: Result, digest: str) -> Sampling:
    if digest < RANDOM_BELOW:
        return "random"
    return "shadow" if result.verdict == "ok" else "alarm"
