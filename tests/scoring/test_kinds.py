"""Laws of kinds: a region is called as those it is like, and not at all where it is like none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from energyad.errors import ModelError
from energyad.images.tiling import Tiles
from energyad.scoring.coverage import patch_coverage
from energyad.scoring.kinds import MAX_NAMED, KindClassifier
from energyad.scoring.regions import UNKNOWN, Region


def classifier(
    dimensions: int = 3, *, temperature: float = 1.0, limits: tuple[float, float] = (9.0, 9.0)
) -> KindClassifier:
    centres = np.zeros((2, dimensions), np.float32)
    centres[1, 0] = 10
    return KindClassifier(
        *(("dent", "scratch"), centres, np.eye(dimensions, dtype=np.float32)),
        *(np.array(limits), temperature, (8, 8), (1, 1)),
    )


def region(x: int, y: int, side: int = 8) -> Region:
    corners = ((x, y), (x + side, y), (x + side, y + side), (x, y + side))
    return Region(corners, (x, y, side, side), side * side, 1.0, 2.0, (x, y), 0.1)


@pytest.mark.parametrize("dimensions", [1, 3, 40])
def test_a_region_is_called_as_the_nearest_kind_and_unknown_where_all_are_far(dimensions: int) -> None:
    places = np.zeros((4, dimensions), np.float32)
    places[:, 0] = [0.5, 9.0, 5.0, -40.0]
    named = classifier(dimensions).classify(places)
    assert [kind for kind, _ in named] == ["dent", "scratch", UNKNOWN, UNKNOWN]
    assert all(0.5 <= probability <= 1 for _, probability in named)


@pytest.mark.parametrize("dimensions", [1, 3, 40])
def test_a_kind_that_varies_more_takes_regions_that_are_farther_off(dimensions: int) -> None:
    places = np.zeros((2, dimensions), np.float32)
    places[:, 0] = [-2.0, 12.0]
    for limits, expected in (((9.0, 1.0), ["dent", UNKNOWN]), ((1.0, 9.0), [UNKNOWN, "scratch"])):
        named = classifier(dimensions, limits=limits).classify(places)
        assert [kind for kind, _ in named] == expected


def test_probabilities_are_milder_the_higher_the_temperature() -> None:
    place = np.array([[3.0, 0, 0]], np.float32)
    (_, sure), (_, mild) = (classifier(temperature=t).classify(place)[0] for t in (1.0, 64.0))
    assert sure > mild > 0.5


@pytest.mark.parametrize(("shape", "tiles"), [((64, 64), (1, 1)), ((200, 320), (1, 1)), ((100, 400), (1, 2))])
def test_regions_are_named_by_the_features_where_they_lie(
    shape: tuple[int, int], tiles: tuple[int, int]
) -> None:
    cut = Tiles(rows=tiles[0], columns=tiles[1])
    features = np.zeros((cut.count, 3, 6, 6), np.float32)
    features[-1, 0, :, 3:] = 10  # scratches on the right
    height, width = shape
    regions = [region(width // 8, height // 2), region(width - width // 4, height // 2)]
    named = classifier().name_regions(regions, features, shape=shape, tiles=cut, tile_size=(64, 64))
    assert [one.kind for one in named] == ["dent", "scratch"]
    assert [replace(one, kind=None, kind_probability=None) for one in named] == regions


def test_the_first_regions_of_many_are_named_and_none_of_none() -> None:
    features = np.zeros((1, 3, 6, 6), np.float32)
    options = {"shape": (64, 64), "tiles": Tiles(), "tile_size": (64, 64)}
    named = classifier().name_regions([region(20, 20)] * 30, features, **options)  # type: ignore[arg-type]
    assert [one.kind is not None for one in named] == [True] * MAX_NAMED + [False] * (30 - MAX_NAMED)
    assert classifier().name_regions([], features, **options) == ()  # type: ignore[arg-type]


def test_coverage_is_the_share_of_each_patch_in_the_mask() -> None:
    mask = np.zeros((64, 64), bool)
    mask[16:24, 16:20] = True
    covered = patch_coverage(mask, tiles=Tiles(), tile_size=(64, 64), patches=(8, 8), margins=(1, 1))
    expected = np.zeros((1, 6, 6))
    expected[0, 1, 1] = 0.5
    assert covered == pytest.approx(expected)


def test_what_was_written_is_read_and_what_is_damaged_refused() -> None:
    made = classifier()
    read = KindClassifier.from_bytes(made.to_bytes())
    assert (read.names, read.patches) == (made.names, made.patches)
    for name in ("centres", "metric", "limits"):
        assert np.array_equal(getattr(read, name), getattr(made, name))
    for changes in (
        {"limits": np.array([9.0, np.nan])},
        {"limits": np.array([9.0])},
        {"temperature": 0.0},
        {"names": ("dent",)},
        {"metric": np.eye(2, dtype=np.float32)},
        {"margins": (4, 4)},
        {"centres": np.full((2, 3), np.inf, np.float32)},
    ):
        with pytest.raises(ModelError, match="teach again"):
            KindClassifier.from_bytes(replace(made, **changes).to_bytes())  # type: ignore[arg-type]
    for content in (b"", b"x" * 20, made.to_bytes()[:-4]):
        with pytest.raises(ModelError, match="no kinds of defects"):
            KindClassifier.from_bytes(content)


def rewritten(content: bytes, changes: dict[str, Any], *, without: str = "") -> bytes:
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    values = {**json.loads(header["__metadata__"]["kinds"]), **changes}
    values.pop(without, None)
    return safetensors.numpy.save(safetensors.numpy.load(content), metadata={"kinds": json.dumps(values)})


def test_a_file_of_before_with_one_limit_for_all_kinds_is_read() -> None:
    before = rewritten(classifier().to_bytes(), {"limit": 9.0}, without="limits")
    assert KindClassifier.from_bytes(before).limits.tolist() == [9.0, 9.0]


@pytest.mark.parametrize("limits", [9.0, None, "9", {}, [9.0], [[9.0, 9.0]], [[9.0], []], ["a", "b"]])
def test_limits_that_are_not_one_number_for_each_kind_are_refused(limits: Any) -> None:
    with pytest.raises(ModelError, match="teach again"):
        KindClassifier.from_bytes(rewritten(classifier().to_bytes(), {"limits": limits}))
