"""The result of one image as JSON: what the command line, the service, `watch` and Python users all give and keep."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from energyad.scoring.calibration import Calibration, Verdict, benjamini_hochberg
from energyad.scoring.prediction import Prediction
from energyad.scoring.regions import MAX_REGIONS, UNKNOWN, Region

RESULT_SCHEMA_VERSION: Final = 1
Point = Annotated[tuple[int, int], Field(description="x, y in pixels of the original image")]
Probability = Annotated[float, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelReference(_Frozen):
    """Which model a result comes from."""

    name: str
    sha256: str = Field(description="of the model's scorer.onnx, hexadecimal")
    calibrated: str | None = Field(description="when its thresholds were set, ISO 8601")


class Box(_Frozen):
    """An upright rectangle in pixels of the original image; x, y: its upper left pixel."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class RegionResult(_Frozen):
    """A connected region above the threshold that its image exceeds."""

    polygon: list[Point] = Field(min_length=1, description="corners of its outer border")
    box: Box
    area: int = Field(ge=1, description="pixels")
    area_percent: float = Field(ge=0, le=100, description="of the image")
    peak: float = Field(description="highest value of the heatmap in it")
    peak_at: Point
    p_value: Probability = Field(description="of an image whose score is this peak")
    kind: str | None = Field(
        default=None, description="of defect that it is likeliest; unknown: like none that people named"
    )
    kind_probability: Probability | None = Field(default=None, description="of the likeliest kind")

    @classmethod
    def of(cls, region: Region) -> Self:
        """The JSON form of a region."""
        x, y, width, height = region.box
        box = Box(x=x, y=y, width=width, height=height)
        return cls(**{**vars(region), "polygon": list(region.polygon), "box": box})


class ImageResult(_Frozen):
    """What a model says of one image. All keys are always present; where `error` says why an image could not be
    scored, those that depend on its pixels are null.
    """

    schema_version: Literal[1] = RESULT_SCHEMA_VERSION
    image: str | None = Field(description="its path or the name it was given")
    model: ModelReference
    verdict: Verdict | None = Field(
        description="ng: above threshold; review: above review_threshold; ok: neither"
    )
    score: float | None = Field(description="energy, the heatmap's maximum; higher is more abnormal")
    p_value: Probability | None = Field(description="(1 + good parts scoring as high) / (good parts + 1)")
    q_value: Probability | None = Field(
        default=None, description="Benjamini-Hochberg over a batch, where one was asked for"
    )
    threshold: float
    review_threshold: float | None = Field(description="null where the model knows no review")
    category: str | None = Field(
        default=None, description="that the image was taken for, by a model for several"
    )
    width: int | None = Field(ge=1, description="of the original image, pixels")
    height: int | None = Field(ge=1, description="of the original image, pixels")
    regions: list[RegionResult] = Field(
        description=f"highest peak first, at most {MAX_REGIONS}; none where the verdict is ok"
    )
    heatmap: str | None = Field(default=None, description="where its overlay was written")
    error: str | None = Field(default=None, description="why the image could not be scored")

    def json_line(self) -> str:
        """Return one line of JSON, without a line end."""
        return self.model_dump_json()


def scored_result(
    prediction: Prediction, *, image: str | None, model: ModelReference, heatmap: str | None = None
) -> ImageResult:
    """Return the result of an image that was scored.

    Args:
        prediction: What the detector says of the image.
        image: The image's path, or the name it was given.
        model: The model that scored it.
        heatmap: Where the image's overlay was written.
    """
    height, width = prediction.heatmap.shape
    return ImageResult(
        image=image,
        model=model,
        verdict=prediction.verdict,
        score=prediction.score,
        p_value=prediction.p_value,
        threshold=prediction.threshold,
        review_threshold=prediction.review_threshold,
        category=prediction.category,
        width=width,
        height=height,
        regions=[RegionResult.of(region) for region in prediction.regions],
        heatmap=heatmap,
    )


def unreadable_result(
    error: str, *, image: str | None, model: ModelReference, calibration: Calibration
) -> ImageResult:
    """Return the result of an image that could not be scored.

    Args:
        error: The reason, without the image's name.
        image: The image's path, or the name it was given.
        model: The model that should have scored it.
        calibration: The model's thresholds, which are part of every result.
    """
    return ImageResult(
        image=image,
        model=model,
        verdict=None,
        score=None,
        p_value=None,
        threshold=calibration.threshold,
        review_threshold=calibration.review_threshold,
        width=None,
        height=None,
        regions=[],
        error=error,
    )


def named_kind(region: RegionResult) -> str:
    """Return the kind of a region with its probability in words; nothing where the model knows no kinds."""
    if region.kind is None or region.kind_probability is None:
        return ""
    return region.kind if region.kind == UNKNOWN else f"{region.kind} {region.kind_probability:.0%}"


def with_q_values(results: Iterable[ImageResult]) -> list[ImageResult]:
    """Add Benjamini-Hochberg q-values over a batch of results.

    Among the results with q_value ≤ r, the expected share of good parts is at most r (Benjamini and Hochberg 1995).
    Results of images that could not be scored stay as they are.
    """
    batch = list(results)
    q_values = iter(benjamini_hochberg([result.p_value for result in batch if result.p_value is not None]))
    return [
        result if result.p_value is None else result.model_copy(update={"q_value": next(q_values)})
        for result in batch
    ]


def rank(result: ImageResult) -> tuple[bool, float, str]:
    """Return a sort key: highest score first, images that could not be scored last."""
    return result.score is None, -(result.score or 0.0), result.image or ""


def by_score(results: Iterable[ImageResult]) -> list[ImageResult]:
    """Sort results by score, highest first; images that could not be scored come last."""
    return sorted(results, key=rank)


CSV_COLUMNS = (
    "image", "verdict", "score", "p_value", "q_value", "threshold", "review_threshold", "regions", "area_percent",
    "kind", "category", "width", "height", "heatmap", "error",
)  # fmt: skip


FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def results_csv(results: Iterable[ImageResult]) -> str:
    """Write results as CSV with a header: of regions their number and total area; unknown values are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for result in results:
        writer.writerow({name: as_csv_text(value) for name, value in table_row(result).items()})
    return text.getvalue()


def table_row(result: ImageResult) -> dict[str, Any]:
    """Return a result as a row of `CSV_COLUMNS`; None where unknown.

    Of regions it holds their number and total area, and the kind of the one with the highest peak.
    """
    scored = result.score is not None
    return {
        **{name: getattr(result, name, None) for name in CSV_COLUMNS},
        "regions": len(result.regions) if scored else None,
        "area_percent": sum(region.area_percent for region in result.regions) if scored else None,
        "kind": result.regions[0].kind if result.regions else None,
    }


def as_csv_text(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula; numbers stay as they are.

    A text that begins with one of `= + - @`, a tab or a carriage return gets an apostrophe in front, as OWASP's page on
    CSV injection advises.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of `ImageResult` (draft 2020-12), as published in docs/schema/result.schema.json."""
    schema = ImageResult.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":  # python -m energyad.scoring.results > docs/schema/result.schema.json
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
