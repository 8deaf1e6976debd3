"""What the OpenAPI document shows of requests and answers that are not plain JSON models."""

from __future__ import annotations

from typing import Any, Final

from energyad.scoring.results import ImageResult
from energyad.service.scoring import PicturedResult

_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_KINDS: Final = (
    "image/png",
    "image/jpeg",
    "image/bmp",
    "image/tiff",
    "image/webp",
    "application/octet-stream",
)

RESULT: Final[dict[str, Any]] = {
    "schema_version": 1,
    "image": "part_0042.png",
    "model": {
        "name": "gasket",
        "sha256": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        "calibrated": "2026-11-22T02:24:03+00:00",
    },
    "verdict": "ng",
    "score": 4.71,
    "p_value": 0.0123,
    "q_value": None,
    "category": None,
    "threshold": 2.84,
    "review_threshold": 2.2,
    "width": 1024,
    "height": 768,
    "regions": [
        {
            "polygon": [[411, 200], [411, 231], [448, 231], [448, 200]],
            "box": {"x": 411, "y": 200, "width": 38, "height": 32},
            "area": 1024,
            "area_percent": 0.13,
            "peak": 4.71,
            "peak_at": [430, 214],
            "p_value": 0.0123,
            "kind": "scratch",
            "kind_probability": 0.91,
        }
    ],
    "heatmap": None,
    "error": None,
}
UNREADABLE: Final[dict[str, Any]] = {
    **RESULT,
    "image": "part_0043.png",
    **dict.fromkeys(("verdict", "score", "p_value", "width", "height")),
    "regions": [],
    "error": "the file is truncated or damaged; copy it again or leave it out",
}


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"type": "object", "properties": {field: schema}, "required": [field]}}


ONE_IMAGE: Final[dict[str, Any]] = {
    "required": True,
    "content": dict.fromkeys(_KINDS, _BINARY) | {"multipart/form-data": _form("file", _BINARY["schema"])},
}
SEVERAL_IMAGES: Final[dict[str, Any]] = {
    "required": True,
    "content": {"multipart/form-data": _form("files", {"type": "array", "items": _BINARY["schema"]})},
}


def error_example(description: str, reason: str) -> dict[str, Any]:
    """Describe an error response, with an example of its reason."""
    schema = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {
        "description": description,
        "content": {"application/json": {"schema": schema, "example": {"error": reason}}},
    }


ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: error_example(
        "The request cannot be understood", "the form holds no file; curl does it with -F file=@part.png"
    ),
    401: error_example("No key, or another", "give the service's key as X-API-Key"),
    403: error_example("A page of another site", "pages of other sites cannot use this service"),
    404: error_example("No such model", "there is no such model; there are: gasket, bolt"),
    421: error_example(
        "A host that the service does not have",
        "this service has no host 'example.com'; start it with --allow-host NAME to allow one",
    ),
}
_UPLOADS: Final[dict[int | str, dict[str, Any]]] = {
    408: error_example(
        "The body did not arrive", "the image did not arrive within 30 s, 5 s for each piece; send it again"
    ),
    413: error_example(
        "Too many bytes or pixels",
        "the request is larger than 32 MiB; send smaller images, or fewer at a time",
    ),
    415: error_example("Not an image's Content-Type", "application/json is no image; send the image itself"),
    429: error_example(
        "Too many requests are waiting; see Retry-After",
        "16 requests are waiting already; send it again later",
    ),
}
SCORE: Final[dict[int | str, dict[str, Any]]] = {
    **_UPLOADS,
    200: {
        "model": ImageResult | PicturedResult,
        "description": "The result, or its overlay with the figures in headers, X-Energyad-score and others",
        "content": {"application/json": {"example": RESULT}, "image/png": _BINARY},
    },
    422: error_example("Bytes that are no usable image", UNREADABLE["error"]),
}
BATCH: Final[dict[int | str, dict[str, Any]]] = {
    **_UPLOADS,
    200: {
        "description": "Results in the order of the files; where `error` is not null the image could not be scored",
        "content": {"application/json": {"example": {"results": [RESULT, UNREADABLE]}}},
    },
}
_TENSOR: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string", "enum": ["BYTES", "UINT8"]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
    "required": ["name", "datatype", "shape"],
}
TENSORS: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {"type": "array", "items": _TENSOR, "minItems": 1, "maxItems": 1},
                    "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
                },
                "required": ["inputs"],
            }
        }
    },
}
INFER: Final[dict[int | str, dict[str, Any]]] = {
    **{status: answer for status, answer in _UPLOADS.items() if status != 415},
    200: {
        "description": "Tensors; those that were asked for as binary data stand behind the JSON",
        "content": {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": _BINARY},
    },
}
NOT_READY: Final[dict[int | str, dict[str, Any]]] = {
    503: {
        "description": "It takes no images, at the start and at the end",
        "content": {"application/json": {"example": {"ready": False}}},
    }
}
