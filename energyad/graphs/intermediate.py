"""Refuse OpenVINO files that read beyond their .bin, loop or ask for unbounded memory, before the engine sees them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final
from xml.parsers import expat

from energyad.errors import ModelError, os_reason
from energyad.graphs.inspection import MAX_ELEMENTS

MAX_XML_BYTES: Final = 64 << 20
MAX_TAGS: Final = 1_000_000
REFUSED_LAYERS: Final = frozenset({"If", "Loop", "TensorIterator", "ReadValue", "Assign"})
"""Layers with graphs inside or with a memory; the export writes none."""


def check_intermediate_file(path: Path) -> None:
    """Refuse an .xml as `check_intermediate` does; its weights lie beside it, with the ending .bin.

    Raises:
        ModelError: The file is refused or cannot be read.
    """
    try:
        size = path.stat().st_size
        if size > MAX_XML_BYTES:
            raise ModelError(f"{path}: refused: {size:,} bytes are more than an export has")
        weights = path.with_suffix(".bin")
        num_weights = weights.stat().st_size if weights.is_file() else 0
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {os_reason(error)}") from error
    check_intermediate(content, num_weights=num_weights, name=str(path))


def check_intermediate(content: bytes, *, num_weights: int, name: str) -> None:
    """Refuse an .xml that no export of this package looks like.

    Refused are weights outside the .bin, layers with graphs inside, tensors of more than `MAX_ELEMENTS` elements,
    entities and document types, and what is no XML at all.

    Args:
        content: Of the .xml.
        num_weights: Bytes of the .bin.
        name: How the error names the file.

    Raises:
        ModelError: The file is refused.
    """
    try:
        if len(content) > MAX_XML_BYTES:
            raise _Refused(f"{len(content):,} bytes are more than an export has")
        _Inspection(num_weights).read(content)
    except _Refused as refused:
        raise ModelError(f"{name}: refused: {refused}; export the model again") from None
    except (expat.ExpatError, ValueError) as error:
        raise ModelError(f"{name}: is no OpenVINO file, or a damaged one; export the model again") from error


class _Refused(Exception):
    """Why a file is refused."""


class _Inspection:
    """One walk over one file."""

    def __init__(self, num_weights: int) -> None:
        self._num_weights = num_weights
        self._num_tags = 0
        self._dims: list[int] | None = None
        self._is_dim = False

    def read(self, content: bytes) -> None:
        """Raise _Refused where the file is not to be opened."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.Parse(content, True)

    def _refuse_doctype(self, *_: object) -> None:
        raise _Refused("it declares a document type")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._num_tags += 1
        if self._num_tags > MAX_TAGS:
            raise _Refused(f"it has more than {MAX_TAGS:,} tags")
        if tag in ("body", "then_body", "else_body") or attributes.get("type") in REFUSED_LAYERS:
            raise _Refused("it holds a graph inside a layer")
        if "offset" in attributes and "size" in attributes:
            offset, size = int(attributes["offset"]), int(attributes["size"])
            if offset < 0 or size < 0 or offset + size > self._num_weights:
                raise _Refused("it keeps a tensor outside its .bin")
        if "shape" in attributes:
            self._check(
                [int(part) for part in attributes["shape"].replace("?", "1").split(",") if part.strip()]
            )
        if tag == "port":
            self._dims = []
        self._is_dim = tag == "dim"

    def _text(self, text: str) -> None:
        if self._is_dim and self._dims is not None and text.strip():
            self._dims.append(int(text))

    def _end(self, tag: str) -> None:
        self._is_dim = False
        if tag == "port" and self._dims is not None:
            self._check(self._dims)
            self._dims = None

    def _check(self, dims: list[int]) -> None:
        if math.prod(max(1, abs(size)) for size in dims) > MAX_ELEMENTS:
            raise _Refused(f"it has a tensor of more than {MAX_ELEMENTS:,} elements")
