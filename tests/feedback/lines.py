"""A line's database whose results are those of a model, as a watcher stores them."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path

from energyad.detector import AnomalyDetector
from energyad.line import audit
from energyad.line.database import Database
from energyad.line.tables import KEPT, Arrival, Result, Source, Stream, WatcherProcess


def fill_line(database: Database, detector: AnomalyDetector, paths: Sequence[Path]) -> None:
    """Store the result of each image, in this order."""
    folder = paths[0].parents[2]
    with database.write() as session:
        stream = Stream(station="one", path=str(folder / "results.jsonl"), last_number=len(paths))
        session.add(stream)
        session.add(WatcherProcess(id="w", place="here", process=1, started="", heartbeat=0.0, ended=True))
        session.flush()
        source = Source(stream_id=stream.id, folder=str(folder))
        session.add(source)
        session.flush()
        for number, path in enumerate(paths, start=1):
            result = detector.score_image(path).result()
            content = path.read_bytes()
            arrival = Arrival(
                source_id=source.id,
                path=path.relative_to(folder).as_posix(),
                size=len(content),
                mtime_ns=number,
                sha256=hashlib.sha256(content).hexdigest(),
                state=KEPT,
                watcher_id="w",
            )
            session.add(arrival)
            session.flush()
            row = Result(
                stream_id=stream.id,
                number=number,
                arrival_id=arrival.id,
                scored_at=datetime.datetime.now(datetime.UTC),
                model_name=detector.name,
                model_sha256=detector.reference.sha256,
                verdict=result.verdict,
                score=result.score,
                quarantined=False,
                line=result.json_line(),
            )
            session.add(row)
            session.flush()
            audit.record(session, "verdict", [(row.id, audit.result_digest(row, arrival.sha256))])
