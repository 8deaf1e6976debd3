"""A candidate in the shadow: it scores each image beside the model in charge, and nothing acts on what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome
from energyad.errors import first_line
from energyad.line.reloading import ReloadingDetector
from energyad.line.tables import Result, ShadowResult


class Shadow:
    """Scores images that a model in charge has scored. What fails here costs that image's shadow and nothing else.

    Args:
        folder: Of the candidate. It is loaded again when it is replaced.
        load: Loads it. Raises ModelError.
        warn: Called with each fault, once.

    Raises:
        ModelError: The candidate cannot be loaded.
    """

    def __init__(
        self,
        folder: Path,
        load: Callable[[Path], AnomalyDetector],
        *,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._warn, self._warned = warn, set[str]()
        self._model = ReloadingDetector(
            folder, load, on_error=lambda error: self._warn_once(f"the old shadow stays: {error}")
        )

    @property
    def sha256(self) -> str:
        """Of the candidate's graph, hexadecimal."""
        return self._model().reference.sha256

    def beside(self, image: ScoringOutcome) -> ScoringOutcome:
        """Return the image with what the candidate says of it; as it is where the candidate is in charge by now.

        Args:
            image: As the model in charge scored it.
        """
        if not isinstance(image, ScoredImage):
            return image
        try:
            candidate = self._model()
            if candidate.reference == image.model:
                return image
            shadow = candidate.score_image(image.pixels).result(name="")
        except Exception as error:  # whatever it is, the line goes on
            self._warn_once(f"the shadow scored nothing: {first_line(error)}")
            return image
        return replace(image, shadow=shadow)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)


@dataclass(frozen=True)
class Comparison:
    """What a candidate said, beside the models in charge.

    Attributes:
        images: That both scored.
        newly_ng: ng by the candidate alone.
        no_longer_ng: ng by the model in charge alone.
        other: That they call otherwise in another way, such as ok and review.
    """

    images: int
    newly_ng: int
    no_longer_ng: int
    other: int


def compare(session: Session, model_sha256: str, *, stream_id: int | None = None) -> Comparison:
    """Count how often a candidate said otherwise.

    Args:
        session: That reads.
        model_sha256: Of the candidate's graph.
        stream_id: Of one results file; None for all.
    """
    query = (
        select(Result.verdict, ShadowResult.verdict, func.count())
        .join(Result, ShadowResult.result_id == Result.id)
        .where(ShadowResult.model_sha256 == model_sha256)
        .group_by(Result.verdict, ShadowResult.verdict)
    )
    if stream_id is not None:
        query = query.where(Result.stream_id == stream_id)
    counts = {(said, shadow): count for said, shadow, count in session.execute(query)}
    differing = {pair: count for pair, count in counts.items() if pair[0] != pair[1]}
    newly = sum(count for (_, shadow), count in differing.items() if shadow == "ng")
    no_longer = sum(count for (said, _), count in differing.items() if said == "ng")
    return Comparison(sum(counts.values()), newly, no_longer, sum(differing.values()) - newly - no_longer)
