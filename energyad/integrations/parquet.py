"""Results as Parquet: the columns of the published schema, regions nested. Needs the extra `ray`."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Final

import pyarrow
import pyarrow.parquet

from energyad.scoring.results import ImageResult

_BOX: Final = pyarrow.struct([(name, pyarrow.int32()) for name in ("x", "y", "width", "height")])
_POINT: Final = pyarrow.list_(pyarrow.int32())
_REGION: Final = pyarrow.struct(
    [
        ("polygon", pyarrow.list_(_POINT)),
        ("box", _BOX),
        ("area", pyarrow.int64()),
        ("area_percent", pyarrow.float64()),
        ("peak", pyarrow.float64()),
        ("peak_at", _POINT),
        ("p_value", pyarrow.float64()),
        ("kind", pyarrow.string()),
        ("kind_probability", pyarrow.float64()),
    ]
)
_MODEL: Final = pyarrow.struct([(name, pyarrow.string()) for name in ("name", "sha256", "calibrated")])
RESULT_SCHEMA: Final = pyarrow.schema(
    [
        ("schema_version", pyarrow.int32()),
        ("image", pyarrow.string()),
        ("model", _MODEL),
        ("verdict", pyarrow.string()),
        ("score", pyarrow.float64()),
        ("p_value", pyarrow.float64()),
        ("q_value", pyarrow.float64()),
        ("threshold", pyarrow.float64()),
        ("review_threshold", pyarrow.float64()),
        ("category", pyarrow.string()),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("regions", pyarrow.list_(_REGION)),
        ("heatmap", pyarrow.string()),
        ("error", pyarrow.string()),
    ]
)
"""The keys of a result as JSON, in their order."""


def results_table(results: Iterable[ImageResult]) -> pyarrow.Table:
    """Return results as a table, a row each.

    Example:
        >>> table = results_table(image.result() for image in detector.score_images(paths))
        >>> pyarrow.parquet.write_table(table, "results.parquet")
    """
    return pyarrow.Table.from_pylist([result.model_dump() for result in results], schema=RESULT_SCHEMA)


def table_bytes(table: pyarrow.Table) -> bytes:
    """Return a table as the bytes of a Parquet file."""
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def read_table(content: bytes, columns: list[str] | None = None) -> pyarrow.Table:
    """Return the table in the bytes of a Parquet file, or some of its columns."""
    return pyarrow.parquet.read_table(io.BytesIO(content), columns=columns)
