"""The addresses of the page /review: what waits for a label, its pictures, and the labels."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

import anyio.to_thread
import numpy as np
from fastapi import APIRouter, Depends, Query
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field

from energyad.detector.scored_image import UnreadableImage
from energyad.errors import DataError, ImageError
from energyad.feedback.marks import Polygon
from energyad.feedback.queue import QueueItem, ReviewQueue
from energyad.images.decoding import largest_file
from energyad.line.incoming import read_file
from energyad.service.errors import RequestError
from energyad.service.routes import State, place_in_queue
from energyad.service.scoring import ModelSession, Pictures, status_of
from energyad.service.security import MAX_NAME, Person, require_key
from energyad.service.state import ServiceState
from energyad.service.uploads import Upload

MAX_CORNERS: Final = 10_000
"""Of all marks of one label."""


def reviewer_of(
    person: Person,
    reviewer: Annotated[
        str | None,
        Query(max_length=MAX_NAME, description="Who reviews, where the service does not know by itself."),
    ] = None,
) -> str:
    """Return who reviews: whom the key or the proxy names, else the name that was given.

    Raises:
        RequestError: 400 where nobody is named.
    """
    name = person if person is not None else (reviewer or "").strip()
    if not name:
        raise RequestError(400, "who reviews? Give ?reviewer=")
    return name


Reviewer = Annotated[str, Depends(reviewer_of)]
Corner = tuple[Annotated[int, Field(ge=0, le=1 << 20)], Annotated[int, Field(ge=0, le=1 << 20)]]


class Waiting(BaseModel):
    """One result that waits for a label."""

    model_config = ConfigDict(frozen=True)

    id: int
    sampling: str = Field(description="why: alarm, shadow (a candidate says otherwise) or random")
    result: dict[str, Any] = Field(description="as `energyad score --json` prints it")
    shadow: dict[str, Any] | None = Field(description="what a candidate said, likewise; null where none did")


class Queue(BaseModel):
    """The results that came last, and the kinds that were named so far."""

    waiting: list[Waiting]
    kinds: list[str]


class GivenLabel(BaseModel):
    """What a reviewer says of an image."""

    model_config = ConfigDict(extra="forbid")

    label: Literal["fine", "defect", "unsure"]
    kind: Annotated[str, Field(max_length=100)] | None = None
    marks: list[Annotated[list[Corner], Field(min_length=1)]] = Field(
        default_factory=list, max_length=1000, description="polygons around the defects, pixels of the image"
    )


class Me(BaseModel):
    """Who asks."""

    name: str | None = Field(description="as the key or the proxy says; null where the reviewer says it")
    role: Literal["reviewer", "owner"]


class Stored(BaseModel):
    """What became of a label."""

    stored: Literal["new", "changed", "unchanged", "withdrawn", "absent"]


router = APIRouter(prefix="/v1/review", dependencies=[Depends(require_key)])


@router.get("/me", summary="Who asks")
async def me(state: State, person: Person) -> Me:
    """A page that knows its reviewer asks for no name."""
    is_owner = person is None or person in state.settings.owners
    return Me(name=person, role="owner" if is_owner else "reviewer")


@router.get("", summary="What waits for a label")
async def queue(state: State, reviewer: Reviewer, limit: Annotated[int, Query(ge=1, le=200)] = 20) -> Queue:
    """Results that are not ok, that a candidate calls otherwise, and a random share of all; without those that the
    reviewer has labelled.
    """
    review = _review(state)
    items = await anyio.to_thread.run_sync(lambda: review.waiting(reviewer, limit=limit))
    kinds = await anyio.to_thread.run_sync(review.kinds)
    waiting = [
        Waiting(
            id=item.id,
            sampling=item.sampling,
            result=json.loads(item.line),
            shadow=None if item.shadow is None else json.loads(item.shadow),
        )
        for item in items
    ]
    return Queue(waiting=waiting, kinds=kinds)


@router.get("/{result_id}/pictures", summary="Image and heatmap of a result")
async def pictures(state: State, result_id: int) -> Pictures:
    """The heatmap is that of the model as it is now."""
    item = await anyio.to_thread.run_sync(lambda: _item(_review(state), result_id))
    session = state.session(item.opinion.name if item.opinion.name in state.sessions else None)
    upload = await anyio.to_thread.run_sync(lambda: _read(item, max_pixels=session.max_pixels))
    with place_in_queue(state):
        return await state.worker.decode_and_run(
            lambda: session.decode(upload), lambda pixels: _picture(session, pixels)
        )


@router.post("/{result_id}/label", summary="Store a label")
async def store(state: State, result_id: int, reviewer: Reviewer, given: GivenLabel) -> Stored:
    """What is said twice is stored once; what is said otherwise replaces the label, and the history keeps both."""
    if sum(map(len, given.marks)) > MAX_CORNERS:
        raise RequestError(400, f"marks: more than {MAX_CORNERS} corners; draw them coarser")
    marks: tuple[Polygon, ...] = tuple(tuple(polygon) for polygon in given.marks)
    kind = (given.kind or "").strip() or None
    review = _review(state)

    def add() -> Stored:
        item = _item(review, result_id)
        added = review.label(item, reviewer=reviewer, value=given.label, kind=kind, marks=marks)
        return Stored(stored="new" if added.new else "changed" if added.changed else "unchanged")

    return await anyio.to_thread.run_sync(add)


@router.delete("/{result_id}/label", summary="Take a label back")
async def withdraw(state: State, result_id: int, reviewer: Reviewer) -> Stored:
    """The result waits again; the history keeps the label."""
    review = _review(state)

    def take_back() -> Stored:
        item = _item(review, result_id)
        is_withdrawn = review.withdraw(item, reviewer=reviewer)
        return Stored(stored="withdrawn" if is_withdrawn else "absent")

    return await anyio.to_thread.run_sync(take_back)


def _review(state: ServiceState) -> ReviewQueue:
    if state.review is None:
        raise RequestError(404, "this service reviews nothing; start it with --review DATABASE")
    return state.review


def _item(review: ReviewQueue, result_id: int) -> QueueItem:
    try:
        return review.item(result_id)
    except DataError as error:
        raise RequestError(404, str(error)) from None


def _read(item: QueueItem, *, max_pixels: int) -> Upload:
    """The image that was scored, and no other one under its name."""
    name = item.image.name
    try:
        return Upload(name, read_file(item.image, item.sha256, max_bytes=largest_file(max_pixels)))
    except ImageError:
        raise RequestError(404, f"{name}: the image is not where it was; it cannot be shown") from None


def _picture(session: ModelSession, pixels: UInt8[np.ndarray, "h w 3"] | UnreadableImage) -> Pictures:
    if isinstance(pixels, UnreadableImage):
        raise RequestError(status_of(pixels.error), pixels.error.reason)
    image = session.detector.score_image(pixels).require()
    return session.with_pictures(image, image.result()).pictures
