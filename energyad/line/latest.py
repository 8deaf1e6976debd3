"""The latest parts of a line, which drift is measured from."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from energyad.line.tables import Result
from energyad.model.statistics import PartStatistics


def latest_parts_of(
    session: Session, model_sha256: str | None, *, window: int, stream_id: int | None = None
) -> list[PartStatistics]:
    """The latest parts that a model scored, oldest first; of one results file, or of all."""
    columns = (
        Result.score,
        Result.brightness,
        Result.contrast,
        Result.sharpness,
        Result.heatmap_mean,
        Result.category,
    )
    query = select(*columns).where(Result.model_sha256 == model_sha256, Result.score.is_not(None))
    if stream_id is not None:
        query = query.where(Result.stream_id == stream_id).order_by(Result.number.desc())
    else:
        query = query.order_by(Result.id.desc())
    rows = session.execute(query.limit(window)).all()
    return [
        PartStatistics(
            row.score,
            brightness=row.brightness,
            contrast=row.contrast,
            sharpness=row.sharpness,
            heatmap_mean=row.heatmap_mean,
            category=row.category,
        )
        for row in reversed(rows)
    ]
