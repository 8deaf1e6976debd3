"""The addresses under /v1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field

from energyad.detector.scored_image import UnreadableImage
from energyad.line.drift import Drift
from energyad.scoring.calibration import Method
from energyad.scoring.results import ImageResult, with_q_values
from energyad.service import examples
from energyad.service.errors import RequestError
from energyad.service.scoring import ModelSession, overlay_png, status_of
from energyad.service.security import Person, require_key, require_key_to_change, require_owner
from energyad.service.state import ServiceState
from energyad.service.uploads import Upload, read_uploads


class ModelEntry(BaseModel):
    """One model of the service."""

    model_config = ConfigDict(frozen=True)

    name: str
    fitted: str = Field(description="ISO 8601")
    calibrated: str | None = Field(description="ISO 8601")
    threshold: float
    false_reject_rate: float
    method: Method
    review_threshold: float | None
    good_parts: int = Field(description="held-out good parts that the thresholds rest on")
    image_size: tuple[int, int] = Field(description="height and width of the network's input, pixels")
    drift: Literal["too few", "stable", "shifted"]
    advice: str = Field(description="what the drift asks for, in one line")


class Models(BaseModel):
    """All models of the service."""

    models: list[ModelEntry]


class Batch(BaseModel):
    """Results in the order of the files."""

    results: list[ImageResult]


router = APIRouter(prefix="/v1", dependencies=[Depends(require_key)], responses=examples.ERRORS)
ModelName = Annotated[str | None, Query(description="Which model; the only one where there is one.")]


def state_of(request: Request) -> ServiceState:
    """Return the state that the application was built with."""
    state: ServiceState = request.app.state.service
    return state


State = Annotated[ServiceState, Depends(state_of)]


@router.post(
    "/score",
    summary="Score one image",
    responses=examples.SCORE,
    openapi_extra={"requestBody": examples.ONE_IMAGE},
)
async def score(
    request: Request,
    state: State,
    model: ModelName = None,
    overlay: Annotated[
        bool, Query(description="Answer with the overlay as PNG; so does Accept: image/png.")
    ] = False,
    pictures: Annotated[
        bool, Query(description="Add `pictures`: image and heatmap as data URLs, at most 1024 pixels a side.")
    ] = False,
) -> Response:
    """Send the image as the body, or as the one file of a multipart form. The answer is the result as JSON."""
    session = state.session(model)
    (upload,) = await read_uploads(request, state.bodies, most=1)
    with place_in_queue(state):
        wants_overlay = overlay or request.headers.get("accept", "").split(";")[0].strip() == "image/png"
        return await state.worker.decode_and_run(
            lambda: session.decode(upload),
            lambda pixels: _score_one(
                state, session, upload, pixels, overlay=wants_overlay, pictures=pictures
            ),
        )


def _score_one(
    state: ServiceState,
    session: ModelSession,
    upload: Upload,
    pixels: UInt8[np.ndarray, "h w 3"] | UnreadableImage,
    *,
    overlay: bool,
    pictures: bool,
) -> Response:
    image = session.score_pixels(pixels)
    result = state.record(session, image.result(name=upload.label))
    if isinstance(image, UnreadableImage):
        raise RequestError(status_of(image.error), image.error.reason)
    if overlay:
        return Response(overlay_png(image), media_type="image/png", headers=summary(result))
    answer = session.with_pictures(image, result) if pictures else result
    return Response(answer.json_line(), media_type="application/json")


def summary(result: ImageResult) -> dict[str, str]:
    """Return the figures of a result as headers, for an answer whose body is a picture; values are percent-encoded."""
    named = {
        "verdict": result.verdict,
        "score": result.score,
        "p-value": result.p_value,
        "threshold": result.threshold,
        "category": result.category,
    }
    return {f"X-Energyad-{name}": quote(str(value)) for name, value in named.items() if value is not None}


@router.post(
    "/score/batch",
    summary="Score several images",
    responses=examples.BATCH,
    openapi_extra={"requestBody": examples.SEVERAL_IMAGES},
)
async def score_batch(
    request: Request,
    state: State,
    model: ModelName = None,
    q_values: Annotated[
        bool, Query(description="Add Benjamini-Hochberg q-values over these images.")
    ] = False,
) -> Response:
    """Send a multipart form of several files. An image that cannot be scored costs its own result and no other."""
    session = state.session(model)
    uploads = await read_uploads(request, state.bodies, most=state.settings.max_batch)
    with place_in_queue(state):
        results = []
        for upload in uploads:  # a turn each, so that a batch does not hold up single images
            results.append(await _result(state, session, upload))
    answers = with_q_values(results) if q_values else results
    return Response(Batch(results=answers).model_dump_json(), media_type="application/json")


async def _result(state: ServiceState, session: ModelSession, upload: Upload) -> ImageResult:
    """Score one image of several."""
    image = await state.worker.decode_and_run(lambda: session.decode(upload), session.score_pixels)
    return state.record(session, image.result(name=upload.label))


@contextlib.contextmanager
def place_in_queue(state: ServiceState) -> Iterator[None]:
    """A place in the queue, for a request whose body has arrived. Raises RequestError 429."""
    state.worker.enter()
    try:
        yield
    finally:
        state.worker.leave()


@router.get("/models", summary="The models and how they are doing")
async def models(state: State) -> Models:
    """Thresholds, what they rest on, and whether the line has drifted away from it."""
    return Models(models=[_entry(session) for session in state.sessions.values()])


def _entry(session: ModelSession) -> ModelEntry:
    detector, calibration = session.detector, session.detector.calibration
    return ModelEntry(
        name=detector.name,
        fitted=detector.manifest.created,
        calibrated=detector.reference.calibrated,
        threshold=calibration.threshold,
        false_reject_rate=calibration.false_reject_rate,
        method=calibration.method,
        review_threshold=calibration.review_threshold,
        good_parts=len(calibration.good_scores),
        image_size=detector.image_size,
        drift=session.drift.state,
        advice=session.drift.advice,
    )


@router.post(
    "/models/{name}/reload",
    summary="Load a model again, after a calibration",
    dependencies=[Depends(require_key_to_change)],
    responses={
        409: examples.error_example("It cannot be loaded; the old one stays", "the old model stays: ...")
    },
)
async def reload(name: str, state: State) -> ModelEntry:
    """The model is read from where the service found it. Images that were taken before are scored by the old one.

    Needs a key always, as X-API-Key: the service's, or where it has none the one that it printed at its start.
    """
    state.session(name)
    return _entry(await state.worker.run(state.reload, name))


@router.post(
    "/models/{name}/promote",
    summary="Put the candidate of a model in charge",
    dependencies=[Depends(require_owner)],
    responses={
        403: examples.error_example("Somebody else than an owner asks", "owners alone may do this; ..."),
        409: examples.error_example(
            "There is no candidate, or it has faults", "models/...: not promoted: ..."
        ),
    },
)
async def promote(
    name: str,
    state: State,
    person: Person,
    force: Annotated[bool, Query(description="Also where it finds or promises less than before.")] = False,
) -> ModelEntry:
    """As `energyad promote`. The service scores by it from the next image on."""
    return _entry(await state.worker.run(state.promote, name, force=force, by=person or ""))


@router.post(
    "/models/{name}/rollback",
    summary="Go back to the version before the last promotion",
    dependencies=[Depends(require_owner)],
    responses={
        403: examples.error_example("Somebody else than an owner asks", "owners alone may do this; ...")
    },
)
async def rollback(name: str, state: State, person: Person) -> ModelEntry:
    """As `energyad rollback`. The service scores by it from the next image on."""
    return _entry(await state.worker.run(state.rollback, name, by=person or ""))


@router.get("/models/{name}/drift", summary="Drift of one model in full")
async def model_drift(name: str, state: State) -> Drift:
    """Each quantity of the latest parts against the held-out good ones: then, now, and how sure and large the shift."""
    return state.session(name).drift


@router.get("/schema", summary="JSON Schema of a result")
async def schema() -> JSONResponse:
    """The schema that every result obeys, here and on the command line."""
    from energyad.scoring.results import json_schema

    return JSONResponse(json_schema())
