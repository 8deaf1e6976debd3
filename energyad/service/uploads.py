"""The body of a request → the bytes of its images. Nothing is decoded here, and nothing touches the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from energyad.service.bodies import CLOSE, PendingBodies
from energyad.service.errors import RequestError
from energyad.service.settings import MIB, ServiceSettings

HOW: Final = (
    "send the image itself with Content-Type: image/png (or jpeg, bmp, tiff, webp), or as a multipart form"
)
_DRAIN_SECONDS: Final = 5.0
_MAX_NAME_LENGTH: Final = 200


@dataclass(frozen=True)
class Upload:
    """One image as it came.

    Attributes:
        label: The client's name for it, for the answer alone; never a path.
        data: The bytes of the image file.
    """

    label: str | None
    data: bytes


async def read_uploads(request: Request, bodies: PendingBodies, *, most: int) -> list[Upload]:
    """Read the images of a request.

    Args:
        request: The image itself as the body, or a multipart form of files.
        bodies: The bodies that are arriving, and their limits.
        most: Largest number of files.

    Raises:
        RequestError: 400, 408, 413, 415 or 429, with what to do.
    """
    kind = request.headers.get("content-type", "application/octet-stream").split(";")[0].strip().lower()
    if kind != "multipart/form-data" and kind != "application/octet-stream" and not kind.startswith("image/"):
        await drain(request, bodies.settings)
        raise RequestError(415, f"{kind[:100]} is no image; {HOW}")
    body = await read_body(request, bodies)
    if kind != "multipart/form-data":
        return [Upload(None, body)]
    uploads = await _files_of(body, request.headers, most=most)
    if not uploads:
        raise RequestError(400, "the form holds no file; curl does it with -F file=@part.png")
    return uploads


async def read_body(request: Request, bodies: PendingBodies) -> bytes:
    """Read the whole body.

    Raises:
        RequestError: 413 as soon as it is known to be too large, 408 where it does not arrive in time, 429 where too
            many bodies are arriving, 400 where the connection ends.
    """
    settings = bodies.settings
    too_large = RequestError(
        413,
        f"the request is larger than {settings.max_upload / MIB:g} MiB; send smaller images, or fewer at a time",
        headers=CLOSE,
    )
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > settings.max_upload:
        await drain(request, settings)
        raise too_large
    body = bytearray()
    try:
        async with bodies.arriving(request.client.host if request.client is not None else "") as arrival:
            async for chunk in request.stream():
                arrival.add(len(chunk))
                body += chunk
                if len(body) > settings.max_upload:
                    raise too_large
    except ClientDisconnect:
        raise RequestError(400, "the connection ended before the image did") from None
    return bytes(body)


async def drain(request: Request, settings: ServiceSettings) -> None:
    """Read and drop what a client still sends, within limits, so that it gets the answer and no broken connection."""
    num_bytes = 0
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for chunk in request.stream():
                num_bytes += len(chunk)
                if num_bytes > 2 * settings.max_upload:
                    return
    except (TimeoutError, ClientDisconnect):
        return


class _InMemory(MultiPartParser):
    spool_max_size = (
        2**62
    )  # the body is within the limit already: parts stay in memory, none goes to a temporary file


async def _files_of(body: bytes, headers: Headers, *, most: int) -> list[Upload]:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await _InMemory(headers, once(), max_files=most, max_fields=20, max_part_size=10_000).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", "") or "its parts cannot be told apart"
        raise RequestError(
            400, f"the form cannot be used: {reason.rstrip('.')} (at most {most} files)"
        ) from None
    files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
    return [Upload(label_of(part.filename), await part.read()) for part in files]


def label_of(filename: str | None) -> str | None:
    """Return the last part of a client's file name, printable. It labels an answer and is never opened."""
    last = (filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in last if character.isprintable())[:_MAX_NAME_LENGTH]
    return None if printable in {"", ".", ".."} else printable
