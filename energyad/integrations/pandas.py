"""Results as tables of pandas. Needs the extra `pandas`."""

from __future__ import annotations

from collections.abc import Iterable

import pandas

from energyad.scoring.results import CSV_COLUMNS, ImageResult, table_row


def results_frame(results: Iterable[ImageResult]) -> pandas.DataFrame:
    """Return a table with a row for each image: the columns of the CSV file, and types instead of text.

    Args:
        results: As `ScoredImage.result` gives them, or read from `results.jsonl`.

    Example:
        >>> frame = results_frame(image.result() for image in detector.score_images(paths))
        >>> frame.groupby("verdict").score.describe()
    """
    frame = pandas.DataFrame(map(table_row, results), columns=list(CSV_COLUMNS))
    whole = {"regions": "Int64", "width": "Int64", "height": "Int64"}
    numbers = dict.fromkeys(
        ("score", "p_value", "q_value", "threshold", "review_threshold", "area_percent"), "float64"
    )
    texts = dict.fromkeys(("image", "kind", "category", "heatmap", "error"), "string")
    return frame.astype(
        {**whole, **numbers, **texts, "verdict": pandas.CategoricalDtype(["ok", "review", "ng"])}
    )


def regions_frame(results: Iterable[ImageResult]) -> pandas.DataFrame:
    """Return a table with a row for each region of each image: its box, area, peak, p-value and kind."""
    columns = [
        "image", "verdict", "region", "x", "y", "width", "height", "area", "area_percent", "peak", "p_value",
        "kind", "kind_probability",
    ]  # fmt: skip
    rows = [
        {
            "image": result.image,
            "verdict": result.verdict,
            "region": number,
            **region.box.model_dump(),
            **region.model_dump(
                include={"area", "area_percent", "peak", "p_value", "kind", "kind_probability"}
            ),
        }
        for result in results
        for number, region in enumerate(result.regions)
    ]
    return pandas.DataFrame(rows, columns=columns)
