"""The verdict on one part as JSON: what every output of a station tells and keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from energyad.scoring.results import ImageResult

PART_SCHEMA_VERSION: Final = 1
PartVerdict: TypeAlias = Literal["ok", "review", "ng", "dark", "saturated", "no_part", "blurred"]
SEVERITY: Final[dict[PartVerdict, int]] = {
    "ok": 0,
    "review": 1,
    "blurred": 2,
    "no_part": 3,
    "saturated": 4,
    "dark": 5,
    "ng": 6,
}
"""Of a part's views the one with the highest decides."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ViewResult(_Frozen):
    """One view of a part: which one, and the result of its image."""

    view: str
    fault: Literal["dark", "saturated", "no_part", "blurred"] | None = Field(
        description="why its frame cannot be judged; it counts instead of the image's verdict"
    )
    result: ImageResult


class PartResult(_Frozen):
    """What a station says of one part. All keys are always present."""

    schema_version: Literal[1] = PART_SCHEMA_VERSION
    station: str
    part: str = Field(
        description="what its images have in common: their path below the views' folders, no suffix"
    )
    number: int = Field(ge=1, description="counts the station's verdicts, without a gap")
    verdict: PartVerdict = Field(
        description="ok, review, ng; or dark, saturated, no_part, blurred: a frame that cannot be judged"
    )
    p_value: float | None = Field(
        ge=0,
        le=1,
        description="of a good part: the number of views times the smallest p-value; null where a view has none",
    )
    reason: str | None = Field(description="why the verdict is not the images' alone; null where it is")
    missing: list[str] = Field(description="views that did not come before the deadline")
    triggered: str | None = Field(
        description="when its first image was complete, ISO 8601; null where unknown"
    )
    decided: str = Field(description="ISO 8601")
    latency: float | None = Field(
        description="seconds from its first image to the verdict; null where unknown"
    )
    views: list[ViewResult]

    def json_line(self) -> str:
        """Return one line of JSON, without a line end."""
        return self.model_dump_json()


def worst(verdicts: Sequence[PartVerdict]) -> PartVerdict:
    """Return the most severe of these verdicts: ng, then frames that cannot be judged, then review, then ok."""
    return max(verdicts, key=SEVERITY.__getitem__)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `PartResult` (draft 2020-12), as published in docs/schema/part.schema.json."""
    schema = PartResult.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":  # python -m energyad.station.results > docs/schema/part.schema.json
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
