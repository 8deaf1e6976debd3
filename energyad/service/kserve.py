"""The KServe V2 inference protocol under /v2, as clients of Triton and KServe speak it.

A model takes a tensor `image`: BYTES of image files, shape [n], in JSON (base64) or as binary data; or UINT8 of RGB
pixels, shape [n, height, width, 3]. It gives `score` and `p_value` (FP32), `verdict` and `result` (BYTES, the JSON of
an image), all of shape [n], and where it is asked for, `heatmap` (FP32, [n, height, width] of the network's input).
Protocol: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and Triton's extension for
binary data.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

import cv2
import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from jaxtyping import Shaped, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from energyad.detector.scored_image import ScoredImage, ScoringOutcome
from energyad.errors import first_validation_error
from energyad.scoring.results import ImageResult
from energyad.service import examples
from energyad.service.errors import RequestError
from energyad.service.routes import State, place_in_queue
from energyad.service.scoring import ModelSession
from energyad.service.security import require_key
from energyad.service.settings import ServiceSettings
from energyad.service.state import ServiceState
from energyad.service.uploads import Upload, read_body

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
IMAGE: Final = "image"
DEFAULT_OUTPUTS: Final = ("score", "p_value", "verdict", "result")
DATATYPES: Final = {
    "score": "FP32",
    "p_value": "FP32",
    "verdict": "BYTES",
    "result": "BYTES",
    "heatmap": "FP32",
}

router = APIRouter(prefix="/v2", dependencies=[Depends(require_key)], responses=examples.ERRORS)
health = APIRouter(prefix="/v2/health")


class _Tensor(BaseModel):
    model_config = ConfigDict(frozen=True)

    name: str
    datatype: str = ""
    shape: tuple[int, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[Any] | None = None


class _InferRequest(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: list[_Tensor]
    outputs: list[_Tensor] = Field(default_factory=list)


@dataclass(frozen=True)
class _Scored:
    """One image after scoring. heatmap: at the network's input size; None where it was not asked for."""

    result: ImageResult
    heatmap: Shaped[np.ndarray, "h w"] | None


@health.get("/live", summary="Whether the process is alive")
async def live() -> dict[str, bool]:
    """KServe's liveness probe."""
    return {"live": True}


@health.get("/ready", summary="Whether it takes images", responses=examples.NOT_READY)
async def ready(request: Request) -> Response:
    """KServe's readiness probe."""
    is_ready: bool = request.app.state.ready
    return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503)


@router.get("", summary="The server and its extensions")
async def server() -> dict[str, Any]:
    """Server metadata of the protocol."""
    return {"name": "energyad", "version": metadata.version("energyad"), "extensions": ["binary_tensor_data"]}


@router.get("/models/{name}", summary="Tensors of a model")
@router.get("/models/{name}/versions/{version}", include_in_schema=False)
async def model(name: str, state: State, version: str = "1") -> dict[str, Any]:
    """Model metadata of the protocol."""
    height, width = _session(state, name, version).detector.input_shape
    return {
        "name": name,
        "versions": ["1"],
        "platform": "energyad",
        "inputs": [{"name": IMAGE, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {
                "name": output,
                "datatype": datatype,
                "shape": [-1, height, width] if output == "heatmap" else [-1],
            }
            for output, datatype in DATATYPES.items()
        ],
    }


@router.get("/models/{name}/ready", summary="Whether a model takes images")
@router.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
async def model_ready(name: str, state: State, version: str = "1") -> dict[str, Any]:
    """KServe's readiness probe of one model."""
    _session(state, name, version)
    return {"name": name, "ready": True}


@router.post(
    "/models/{name}/infer",
    summary="Score images as tensors",
    responses=examples.INFER,
    openapi_extra={"requestBody": examples.TENSORS},
)
@router.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
async def infer(name: str, request: Request, state: State, version: str = "1") -> Response:
    """Score the images of a request. One that cannot be scored has no score, and its `result` says why."""
    session = _session(state, name, version)
    body = await read_body(request, state.bodies)
    with place_in_queue(state):
        # Not on the event loop: JSON of many megabytes would hold up all other requests.
        asked, images = await asyncio.to_thread(
            _parse, body, request.headers.get(HEADER_LENGTH), state.settings
        )
        outputs = _outputs_of(asked)
        wants_heatmap = any(output.name == "heatmap" for output in outputs)
        scored = []
        for image in images:  # a turn each, so that a batch does not hold up single images
            scored.append(await state.worker.run(_score, state, session, image, heatmap=wants_heatmap))
    return _answer(session, asked, outputs, scored)


def _session(state: ServiceState, name: str, version: str) -> ModelSession:
    if version != "1":
        raise RequestError(404, "a model has one version here, 1")
    return state.session(name)


def _score(state: ServiceState, session: ModelSession, image: bytes, *, heatmap: bool) -> _Scored:
    outcome: ScoringOutcome = session.score(Upload(None, image))
    result = state.record(session, outcome.result())
    if not heatmap:
        return _Scored(result, None)
    if isinstance(outcome, ScoredImage):
        return _Scored(result, outcome.network_heatmap)
    return _Scored(result, np.full(session.detector.input_shape, np.nan, np.float32))


def _parse(
    body: bytes, header_length: str | None, settings: ServiceSettings
) -> tuple[_InferRequest, list[bytes]]:
    """A request, and the image files in its JSON or in the binary data behind it."""
    length = len(body) if header_length is None else _length_of(header_length)
    if not 0 < length <= len(body):
        raise RequestError(400, f"{HEADER_LENGTH} is not the length of the JSON in the body")
    try:
        asked = _InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        where, fault = first_validation_error(error)
        raise RequestError(400, f"{where or 'the body'}: {fault}") from None
    return asked, _images_of(asked, body[length:], settings)


def _length_of(header: str) -> int:
    return int(header) if header.isdecimal() and len(header) < 16 else -1


def _images_of(asked: _InferRequest, binary: bytes, settings: ServiceSettings) -> list[bytes]:
    """The image files of a request. Raises RequestError where tensor, shape and data do not belong together."""
    most = settings.max_batch
    if len(asked.inputs) != 1 or asked.inputs[0].name != IMAGE:
        raise RequestError(400, f"give one input, '{IMAGE}'")
    tensor = asked.inputs[0]
    if not tensor.shape or not 0 < tensor.shape[0] <= most or min(tensor.shape) < 1:
        raise RequestError(400, f"'{IMAGE}': give a shape of 1 to {most} images")
    size = tensor.parameters.get("binary_data_size")
    if size is not None and (not isinstance(size, int) or size != len(binary)):
        raise RequestError(400, f"'{IMAGE}': binary_data_size is not the size of the binary data")
    if size is None and (binary or tensor.data is None):
        raise RequestError(400, f"'{IMAGE}': give data or binary_data_size")
    if tensor.datatype == "BYTES":
        images = _elements(binary) if size is not None else _from_base64(tensor.data or [])
        if tensor.shape not in {(len(images),), (len(images), 1)}:
            raise RequestError(
                400, f"'{IMAGE}': shape {list(tensor.shape)} is not that of {len(images)} images"
            )
        return images
    if tensor.datatype == "UINT8":
        return _from_pixels(tensor, binary if size is not None else None, max_pixels=settings.max_pixels)
    raise RequestError(400, f"'{IMAGE}': datatype {tensor.datatype[:20]!r}; give BYTES or UINT8")


def _elements(binary: bytes) -> list[bytes]:
    """Elements of a BYTES tensor: each its length in 4 bytes, little-endian, and its bytes."""
    elements, at = [], 0
    while at < len(binary):
        (length,) = struct.unpack_from("<I", binary, at) if at + 4 <= len(binary) else (len(binary),)
        at += 4 + length
        if at > len(binary):
            raise RequestError(400, f"'{IMAGE}': an element is longer than the binary data")
        elements.append(binary[at - length : at])
    return elements


def _from_base64(data: list[Any]) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, TypeError, ValueError):
        raise RequestError(400, f"'{IMAGE}': data of BYTES in JSON are base64 texts of image files") from None


def _from_pixels(tensor: _Tensor, binary: bytes | None, *, max_pixels: int) -> list[bytes]:
    """RGB pixels as image files, so that they go the way of all images."""
    shape = tensor.shape
    if len(shape) != 4 or shape[3] != 3:
        raise RequestError(400, f"'{IMAGE}': UINT8 has the shape [n, height, width, 3], RGB")
    if shape[1] * shape[2] > max_pixels:
        raise RequestError(413, f"'{IMAGE}': more than {max_pixels:,} pixels; make it smaller")
    flat = np.frombuffer(binary, np.uint8) if binary is not None else _from_numbers(tensor.data or [])
    if flat.size != math.prod(shape):
        raise RequestError(400, f"'{IMAGE}': {flat.size} values do not fill the shape {list(shape)}")
    return [_as_bitmap(pixels) for pixels in flat.reshape(shape)]


def _from_numbers(data: list[Any]) -> UInt8[np.ndarray, " n"]:
    try:
        numbers = np.array(data)  # of any nesting
    except ValueError:
        numbers = np.empty(0)
    if numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() > 255:
        raise RequestError(400, f"'{IMAGE}': data of UINT8 are whole numbers from 0 to 255")
    return numbers.reshape(-1).astype(np.uint8)


def _as_bitmap(pixels: Shaped[np.ndarray, "h w 3"]) -> bytes:
    return cv2.imencode(".bmp", cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR))[1].tobytes()


def _outputs_of(asked: _InferRequest) -> list[_Tensor]:
    outputs = asked.outputs or [_Tensor(name=name) for name in DEFAULT_OUTPUTS]
    unknown = next((output.name for output in outputs if output.name not in DATATYPES), None)
    if unknown is not None:
        raise RequestError(400, f"there is no output {unknown[:50]!r}; there are: {', '.join(DATATYPES)}")
    return outputs


def _answer(
    session: ModelSession, asked: _InferRequest, outputs: list[_Tensor], scored: list[_Scored]
) -> Response:
    """JSON, and behind it the outputs that were asked for as binary data."""
    described, binary = [], b""
    by_default = bool(asked.parameters.get("binary_data_output", False))
    for output in outputs:
        values = _values(output.name, scored)
        entry: dict[str, Any] = {
            "name": output.name,
            "datatype": DATATYPES[output.name],
            "shape": list(values.shape),
        }
        if output.parameters.get("binary_data", by_default):
            content = _as_binary(values)
            entry["parameters"] = {"binary_data_size": len(content)}
            binary += content
        else:
            entry["data"] = [_as_json(value) for value in values.reshape(-1).tolist()]
        described.append(entry)
    answer: Mapping[str, Any] = {
        "model_name": session.detector.name,
        "model_version": "1",
        **({"id": asked.id} if asked.id else {}),
        "outputs": described,
    }
    head = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()
    if not binary:
        return Response(head, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(head + binary, media_type="application/octet-stream", headers=headers)


def _values(name: str, scored: list[_Scored]) -> Shaped[np.ndarray, "n ..."]:
    if name == "heatmap":
        return np.stack([image.heatmap for image in scored if image.heatmap is not None])
    if name == "result":
        return np.array([image.result.json_line() for image in scored], dtype=object)
    values = [getattr(image.result, name) for image in scored]
    if DATATYPES[name] == "BYTES":
        return np.array(["unreadable" if value is None else value for value in values], dtype=object)
    return np.array([math.nan if value is None else value for value in values], dtype=np.float32)


def _as_json(value: object) -> object:
    """JSON has no NaN: null."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _as_binary(values: Shaped[np.ndarray, "n ..."]) -> bytes:
    if values.dtype != object:
        return values.astype("<f4").tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)
