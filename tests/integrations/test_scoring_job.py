"""Archives: every image stands once in the results, whatever it is stored in and wherever the job was killed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

pyarrow = pytest.importorskip("pyarrow")
fsspec = pytest.importorskip("fsspec")
import pyarrow.parquet as pq  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from energyad.data.datasets import Category  # noqa: E402
from energyad.detector import AnomalyDetector  # noqa: E402
from energyad.detector.scored_image import ScoringOutcome  # noqa: E402
from energyad.errors import DataError, ImageError  # noqa: E402
from energyad.integrations import scoring_job  # noqa: E402
from energyad.integrations.parquet import RESULT_SCHEMA, results_table  # noqa: E402
from energyad.integrations.scoring_job import (  # noqa: E402
    ImageReference,
    ScoringSummary,
    finish_job,
    list_images,
    open_job,
    q_values_of_counts,
    score_shard,
)
from energyad.integrations.storage import StorageFolder  # noqa: E402
from energyad.scoring.calibration import benjamini_hochberg  # noqa: E402
from energyad.scoring.results import ImageResult, with_q_values  # noqa: E402

from .writes import dying_after  # noqa: E402


@pytest.fixture
def archive(tmp_path: Path, demo_category: Category) -> Path:
    """Nine images in two folders, one of them damaged, beside files that are none."""
    folder = tmp_path / "archive"
    for number, item in enumerate(demo_category.test[:8]):
        place = folder / f"day{number % 2}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(item.path.read_bytes())
    (folder / "day0" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "day0" / ".hidden.png").write_bytes(b"")
    (folder / "day1" / "notes.txt").write_text("none")
    return folder


def run(sources: list[str], model: Path, output: str, detector: AnomalyDetector) -> ScoringSummary:
    """A job in this process, in shards of four."""
    job = open_job(sources, model, output, shard_size=4, max_pixels=10**8)
    for shard in job.pending():
        score_shard(job, shard, detector)
    return finish_job(job, detector)


def read_results(output: str) -> list[dict[str, object]]:
    folder = StorageFolder.open(output).folder("results")
    names = sorted(folder.names())
    return [
        row for name in names for row in pq.read_table(pyarrow.BufferReader(folder.read(name))).to_pylist()
    ]


def test_an_archive_is_scored_as_the_detector_scores_its_images(
    archive: Path, model_folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    summary = run([str(archive)], model_folder, str(tmp_path / "out"), fitted_detector)
    rows = read_results(str(tmp_path / "out"))
    paths = sorted(archive.glob("*/[!.]*.png"))
    expected = with_q_values(image.result() for image in fitted_detector.score_images(paths))
    by_image = {row["image"]: row for row in rows}
    assert sorted(by_image) == [str(path) for path in paths] and len(rows) == len(paths)
    for result in expected:
        found = ImageResult.model_validate(json.loads(json.dumps(by_image[result.image])))
        if result.score is not None:
            assert found.score == pytest.approx(result.score, rel=1e-5)
            assert found.q_value == pytest.approx(result.q_value)
        assert found.verdict == result.verdict and found.error == result.error
        assert len(found.regions) == len(result.regions)
    assert sum(summary.verdicts.values()) == summary.num_images == 9
    assert summary.verdicts["unreadable"] == 1
    assert summary.drift["window"] == 8


def test_columns_are_those_of_the_published_schema(fitted_detector: AnomalyDetector) -> None:
    assert RESULT_SCHEMA.names == list(ImageResult.model_fields)
    assert results_table([]).schema == RESULT_SCHEMA


class Killed(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.slow
def test_a_job_killed_at_any_write_goes_on_and_holds_each_image_once(
    archive: Path,
    model_folder: Path,
    fitted_detector: AnomalyDetector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    score_images = AnomalyDetector.score_images
    known: dict[object, ScoringOutcome] = {}

    def score_once(
        detector: AnomalyDetector, sources: list[object], **limits: int
    ) -> Iterator[ScoringOutcome]:
        new = [source for source in sources if source not in known]
        known.update(zip(new, score_images(detector, new, **limits), strict=True))
        return iter([known[source] for source in sources])

    monkeypatch.setattr(AnomalyDetector, "score_images", score_once)
    kills, output = 0, ""
    for allowed in range(100):
        output = str(tmp_path / f"out{allowed}")
        try:
            with dying_after(allowed, Killed, monkeypatch):
                run([str(archive)], model_folder, output, fitted_detector)
        except Killed:
            kills += 1
        else:
            break
        run([str(archive)], model_folder, output, fitted_detector)
        counted = Counter(row["image"] for row in read_results(output))
        assert len(counted) == 9 and set(counted.values()) == {1}, allowed
    assert kills >= 3 + 3 + 3 + 2  # inputs, shards, results, the job and its summary, and the model's files


def test_a_job_keeps_its_images_though_the_folder_has_grown(
    archive: Path, model_folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    job = open_job([str(archive)], model_folder, output, shard_size=4, max_pixels=10**8)
    score_shard(job, 0, fitted_detector)
    (archive / "day0" / "new.png").write_bytes((archive / "day0" / "0.png").read_bytes())
    run([str(archive)], model_folder, output, fitted_detector)
    assert len(read_results(output)) == 9


def test_a_shard_in_which_rows_are_missing_is_refused(
    archive: Path, model_folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run([str(archive)], model_folder, str(output), fitted_detector)
    shard = output / "shards" / "00000000.parquet"
    pq.write_table(pq.read_table(shard).slice(1), shard)
    with pytest.raises(DataError, match="not whole"):
        run([str(archive)], model_folder, str(output), fitted_detector)


def test_an_output_of_other_images_is_refused(
    archive: Path, model_folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    output = str(tmp_path / "out")
    run([str(archive)], model_folder, output, fitted_detector)
    with pytest.raises(DataError, match="other images"):
        run([str(archive / "day0")], model_folder, output, fitted_detector)


def test_an_empty_source_is_refused(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in ("empty", "missing"):
        with pytest.raises(DataError, match=source):
            open_job(
                [str(tmp_path / source)], model_folder, str(tmp_path / "out"), shard_size=4, max_pixels=1
            )


def test_images_of_a_url_are_scored_and_written_there(
    archive: Path, model_folder: Path, fitted_detector: AnomalyDetector
) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(archive), "/plant/archive", recursive=True)
    run(["memory://plant/archive"], model_folder, "memory://plant/scores", fitted_detector)
    rows = read_results("memory://plant/scores")
    images = sorted(str(row["image"]) for row in rows)
    assert len(rows) == 9 and images[0].startswith("memory://")
    assert sum(row["error"] is not None for row in rows) == 1


def test_a_url_that_has_gone_costs_its_own_row(
    archive: Path, model_folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(archive / "day1"), "/gone/day1", recursive=True)
    output = str(tmp_path / "out")
    job = open_job(["memory://gone/day1"], model_folder, output, shard_size=3, max_pixels=10**8)
    memory.rm("/gone/day1/1.png")
    run(["memory://gone/day1"], model_folder, output, fitted_detector)
    errors = {row["image"]: row["error"] for row in read_results(output) if row["error"] is not None}
    assert job.num_images == 4 and len(errors) == 1
    assert "no such file" in next(iter(errors.values()))


def test_an_object_larger_than_any_image_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/plant/large/1.png", b"?" * 100)
    monkeypatch.setattr(type(memory), "cat_file", None)
    fetched = scoring_job._fetch(ImageReference("memory://plant/large/1.png"), max_bytes=99)
    assert isinstance(fetched, ImageError) and "100 bytes are more than any image" in str(fetched)


@pytest.mark.parametrize("column", ["path", "bytes", "image"])
@pytest.mark.parametrize("group", [1, 2, 100])
def test_parquet_of_paths_or_bytes_is_an_archive(
    column: str,
    group: int,
    archive: Path,
    model_folder: Path,
    fitted_detector: AnomalyDetector,
    tmp_path: Path,
) -> None:
    paths = sorted(archive.glob("*/[!.]*.png"))
    contents = [path.read_bytes() for path in paths]
    names = [str(path.relative_to(tmp_path)) for path in paths]
    columns = {
        "path": {"path": names},
        "bytes": {"bytes": contents},
        "image": {"image": [{"bytes": content, "path": name} for content, name in zip(contents, names)]},  # noqa: B905
    }
    pq.write_table(pyarrow.table(columns[column]), tmp_path / "list.parquet", row_group_size=group)
    run([str(tmp_path / "list.parquet")], model_folder, str(tmp_path / "out"), fitted_detector)
    rows = read_results(str(tmp_path / "out"))
    expected = [image.result() for image in fitted_detector.score_images(paths)]
    assert [row["verdict"] for row in rows] == [result.verdict for result in expected]
    assert [row["error"] for row in rows] == [result.error for result in expected]
    named = {"path": str(paths[0]), "bytes": f"{tmp_path / 'list.parquet'}#0", "image": names[0]}
    assert rows[0]["image"] == named[column]


def test_a_name_that_is_not_utf_8_is_scored_under_a_name_that_is(
    archive: Path, model_folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    image = next(archive.rglob("0.png"))
    image.rename(os.fsdecode(os.fsencode(image.parent) + b"/\xff.png"))
    summary = run([str(archive)], model_folder, str(tmp_path / "out"), fitted_detector)
    assert summary.num_images == 9 and summary.verdicts["unreadable"] == 1
    rows = read_results(str(tmp_path / "out"))
    assert [row["error"] for row in rows if str(row["image"]).endswith("\\xff.png")] == [None]


@pytest.mark.parametrize("change", ["gone", "shorter", "no Parquet", "no column", "cut"])
def test_a_parquet_file_that_changed_since_it_was_listed_costs_its_own_rows(
    change: str, archive: Path, model_folder: Path, fitted_detector: AnomalyDetector, tmp_path: Path
) -> None:
    images = [path.read_bytes() for path in sorted(archive.rglob("[0-9].png"))]
    table, place = pyarrow.table({"bytes": images[:6]}), tmp_path / "images.parquet"
    pq.write_table(table, place, row_group_size=2)
    job = open_job([str(place), str(archive)], model_folder, str(tmp_path / "out"), max_pixels=10**8)
    whole = place.read_bytes()
    if change == "gone":
        place.unlink()
    elif change == "shorter":
        pq.write_table(table.slice(0, 5), place, row_group_size=2)
    elif change == "no column":
        pq.write_table(table.rename_columns(["other"]), place)
    else:
        place.write_bytes(b"none" if change == "no Parquet" else whole[:9] + bytes(200) + whole[209:])
    score_shard(job, 0, fitted_detector)
    finish_job(job, fitted_detector)
    rows = read_results(str(tmp_path / "out"))
    assert len(rows) == 6 + 9
    of_parquet = [row for row in rows if "images.parquet" in str(row["image"])]
    lost = {"shorter": 1, "cut": 2}.get(change, 6)
    assert sum(row["error"] is not None for row in of_parquet) == lost
    errors = [str(row["error"]) for row in of_parquet if row["error"] is not None]
    assert all(error.startswith("row ") and error.isprintable() for error in errors), errors
    assert sum(row["error"] is None for row in rows if row not in of_parquet) == 8


def test_an_image_of_two_sources_is_listed_once(archive: Path) -> None:
    both = list(list_images([str(archive), str(archive / "day0")]))
    assert len(both) == len(set(both)) == 9


@given(st.lists(st.integers(1, 20).map(lambda rank: rank / 21), max_size=60))
def test_q_values_of_counts_are_those_of_all_values(p_values: list[float]) -> None:
    q_of = q_values_of_counts(Counter(p_values))
    assert [q_of[value] for value in p_values] == pytest.approx(list(benjamini_hochberg(p_values)))
