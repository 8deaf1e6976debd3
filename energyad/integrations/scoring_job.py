"""Scoring of an archive, cut into shards whose results are files of their own. Needs the extra `ray`.

An output folder holds, in the order in which they come about:

    model/                    the model, for all machines
    inputs/00000000.parquet   the images of a shard
    job.json                  what is scored: from here on the list of images never changes
    shards/00000000.parquet   the results of a shard, with what drift is measured from
    results/00000000.parquet  the same in the published columns, with q-values over the whole archive
    summary.json              counts, discoveries and drift

Each file appears whole or not at all and has the name of its shard. So a job that was killed at any moment goes on
where it was, and a shard that was scored twice stands there once.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from energyad.detector import AnomalyDetector
from energyad.detector.scored_image import ScoredImage, ScoringOutcome, UnreadableImage, name_of
from energyad.errors import DataError, ImageError, first_line
from energyad.images.decoding import largest_file
from energyad.images.finding import IMAGE_SUFFIXES, find_images
from energyad.images.prefetch import batches, ordered_map
from energyad.integrations.model_files import read_model_files, write_model_files
from energyad.integrations.parquet import RESULT_SCHEMA, read_table, results_table, table_bytes
from energyad.integrations.storage import StorageFolder, file_system_of
from energyad.line.drift import compare
from energyad.model.manifest import PartStatistics
from energyad.progress import NullProgress, Progress

SHARD_SIZE: Final = 256
"""Images that are scored again at most, for each worker that is killed."""
READERS: Final = 4
"""Images that a worker reads ahead from other machines."""
DRIFT_SAMPLE: Final = 20_000
"""Parts, evenly spaced over the archive, that drift is measured on."""
JOB_FILE: Final = "job.json"
SUMMARY_FILE: Final = "summary.json"
_PARQUET: Final = ".parquet"
_ESCAPES: Final = "surrogateescape"
_INPUT_SCHEMA: Final = pyarrow.schema(
    [("image", pyarrow.binary()), ("parquet", pyarrow.binary()), ("row", pyarrow.int64())]
)
"""Names as bytes: those of files need not be UTF-8."""
_STATISTICS: Final = pyarrow.struct(
    [
        ("score", pyarrow.float64()),
        ("brightness", pyarrow.float64()),
        ("contrast", pyarrow.float64()),
        ("sharpness", pyarrow.float64()),
        ("heatmap_mean", pyarrow.float64()),
        ("category", pyarrow.string()),
    ]
)


@dataclass(frozen=True)
class ImageReference:
    """One image of an archive.

    Attributes:
        image: Its path or URL, which is also what its result calls it.
        parquet: The Parquet file that holds its bytes; None for a file of its own.
        row: The row in it.
    """

    image: str
    parquet: str | None = None
    row: int | None = None


@dataclass(frozen=True)
class ScoringJob:
    """What is scored.

    Attributes:
        output: The folder of the job, a path or URL that all workers reach.
        sources: Files, folders, URLs and Parquet files, as they were given.
        model: Digest of the model.
        num_images: Images of the archive.
        shard_size: Images of a shard.
        max_pixels: Files with more pixels are not decoded.
    """

    output: str
    sources: tuple[str, ...]
    model: str
    num_images: int
    shard_size: int
    max_pixels: int

    @property
    def folder(self) -> StorageFolder:
        """The folder of the job."""
        return StorageFolder.open(self.output)

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_images // self.shard_size)

    def pending(self) -> list[int]:
        """Return the shards that have no results yet."""
        done = self.folder.names("shards")
        return [shard for shard in range(self.num_shards) if shard_file(shard) not in done]

    def images_of(self, shard: int) -> int:
        """Return the number of images of a shard."""
        return min(self.shard_size, self.num_images - shard * self.shard_size)


@dataclass(frozen=True)
class ScoringSummary:
    """The outcome over a whole archive.

    Attributes:
        num_images: Images of the archive.
        verdicts: Number of images by verdict; "unreadable" are those that could not be scored.
        fdr: A false discovery rate.
        discoveries: Number of images whose q-value is at most that.
        drift: The drift of the archive against the model's held-out good parts.
        results: Where the results are.
    """

    num_images: int
    verdicts: dict[str, int]
    fdr: float
    discoveries: int
    drift: dict[str, Any]
    results: str


def shard_file(shard: int) -> str:
    """Return the name of a shard's file."""
    return f"{shard:08d}{_PARQUET}"


def open_job(
    sources: Sequence[str],
    model: Path,
    output: str,
    *,
    shard_size: int = SHARD_SIZE,
    max_pixels: int,
    progress: Progress | None = None,
) -> ScoringJob:
    """Begin a job, or go on with the one that the output folder holds.

    Args:
        sources: Files, folders, globs, URLs, and Parquet files of paths or bytes.
        model: The model folder.
        output: A path or URL that all workers reach.
        shard_size: Images of a shard, where the job begins.
        max_pixels: Files with more pixels are not decoded.
        progress: Receives the number of images listed.

    Raises:
        DataError: There is no image, or the folder holds a job of another model, of other sources or limits.
    """
    if "://" not in output:
        output = str(Path(output).absolute())
    folder = StorageFolder.open(output)
    _, digest, files = read_model_files(model)
    request = {"sources": list(sources), "model": digest, "max_pixels": max_pixels}
    try:
        values = json.loads(folder.read(JOB_FILE))
    except FileNotFoundError:
        write_model_files(folder.folder("model"), files)
        number = _write_inputs(sources, folder, shard_size, progress or NullProgress())
        values = {**request, "num_images": number, "shard_size": shard_size}
        folder.write(JOB_FILE, json.dumps(values, indent=2).encode())
    different = [name for name, value in request.items() if values[name] != value]
    if different:
        labels = {
            "sources": "other images",
            "model": "another model",
            "max_pixels": "another --max-megapixels",
        }
        names = " and ".join(labels[name] for name in different)
        raise DataError(f"{output}: holds a job of {names}; give another --output, or delete it")
    return ScoringJob(output=output, **{**values, "sources": tuple(values["sources"])})


def _write_inputs(sources: Sequence[str], folder: StorageFolder, shard_size: int, progress: Progress) -> int:
    progress.stage("listing", 0)
    number = 0
    for shard, references in enumerate(batches(list_images(sources), shard_size)):
        table = pyarrow.Table.from_pylist([_as_row(reference) for reference in references], _INPUT_SCHEMA)
        folder.write(f"inputs/{shard_file(shard)}", table_bytes(table))
        number += len(references)
        progress.advance(len(references))
    if number == 0:
        raise DataError(f"{', '.join(sources)}: no image there; check the address")
    return number


def _as_row(reference: ImageReference) -> dict[str, Any]:
    names = {"image": reference.image, "parquet": reference.parquet}
    encoded = {key: None if name is None else name.encode("utf-8", _ESCAPES) for key, name in names.items()}
    return {**encoded, "row": reference.row}


def _from_row(row: Mapping[str, Any]) -> ImageReference:
    parquet = None if row["parquet"] is None else row["parquet"].decode("utf-8", _ESCAPES)
    return ImageReference(row["image"].decode("utf-8", _ESCAPES), parquet, row["row"])


def list_images(sources: Iterable[str]) -> Iterator[ImageReference]:
    """List the images of an archive, each once, while memory holds one folder at a time.

    Args:
        sources: Image files, folders and globs; folders by URL; Parquet files and folders of them (ending in
            `.parquet`) with a column `path` (text), `bytes` (the image file, beside a `path` that names it), or `image`
            (both, as Hugging Face's data sets have them). Paths in a Parquet file are relative to its folder.

    Raises:
        DataError: A source is missing, or a Parquet file has no such column.
    """
    sources = list(sources)
    seen: set[ImageReference] = set()
    for source in sources:
        for reference in _references(source):
            if len(sources) > 1:
                if reference in seen:
                    continue
                seen.add(reference)
            yield reference


def _references(source: str) -> Iterator[ImageReference]:
    if "://" not in source and not source.endswith(_PARQUET) and not Path(source).is_dir():
        yield from (ImageReference(str(path.absolute())) for path in find_images([source]))
        return
    file_system, path = file_system_of(source)
    if not file_system.exists(path):
        raise DataError(f"{source}: no such file or folder; check the path")
    if not file_system.isdir(path):
        yield from _references_of_file(file_system, path)
        return
    is_table = source.rstrip("/").endswith(_PARQUET)
    for here, folders, files in file_system.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith(".") or suffix not in ({_PARQUET} if is_table else IMAGE_SUFFIXES):
                continue
            yield from _references_of_file(file_system, f"{here.rstrip('/')}/{name}")


def _references_of_file(file_system: Any, path: str) -> Iterator[ImageReference]:
    url = path if file_system.protocol[0] == "file" else file_system.unstrip_protocol(path)
    if path.endswith(_PARQUET):
        yield from _references_in_parquet(file_system, path, url)
    else:
        yield ImageReference(url)


def _references_in_parquet(file_system: Any, path: str, url: str) -> Iterator[ImageReference]:
    with file_system.open(path, "rb") as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
        except pyarrow.ArrowInvalid as error:
            raise DataError(f"{url}: no Parquet file ({first_line(error)})") from error
        column = _image_column(table.schema_arrow, url)
        names = {"bytes": "path", "image": "image.path", "path": "path"}[column]
        has_names = column != "bytes" or "path" in table.schema_arrow.names
        columns = [names] if has_names else [column]
        row = 0
        for batch in table.iter_batches(columns=columns):
            values = batch.column(0)
            if column == "image":
                values = pyarrow.compute.struct_field(values, "path")
            for value in values.to_pylist() if has_names else [None] * len(values):
                if column == "path":
                    yield ImageReference(_beside(url, value) if value else f"{url}#{row}")
                else:
                    yield ImageReference(str(value or f"{url}#{row}"), parquet=url, row=row)
                row += 1


def _image_column(schema: pyarrow.Schema, url: str) -> str:
    column = next((name for name in ("bytes", "image", "path") if name in schema.names), None)
    if column is None:
        raise DataError(f"{url}: has no column path, bytes or image; rename the one that has the images")
    return column


def _beside(url: str, path: str) -> str:
    """A path of a Parquet file, absolute."""
    if "://" in path or Path(path).is_absolute():
        return path
    return f"{url.rpartition('/')[0]}/{path}"


def score_shard(job: ScoringJob, shard: int, detector: AnomalyDetector) -> int:
    """Score the images of a shard and write their results; nothing where they are there.

    Returns:
        The number of its images.
    """
    folder, name = job.folder, shard_file(shard)
    if name in folder.names("shards") and folder.size(f"shards/{name}") > 0:
        return job.images_of(shard)
    rows = read_table(folder.read(f"inputs/{name}")).to_pylist()
    references = [_from_row(row) for row in rows]
    results, statistics = [], []
    for reference, outcome in _outcomes(detector, references, job.max_pixels):
        results.append(outcome.result(name=name_of(reference.image)))
        statistics.append(asdict(outcome.statistics) if isinstance(outcome, ScoredImage) else None)
    table = results_table(results).append_column("statistics", pyarrow.array(statistics, _STATISTICS))
    folder.write(f"shards/{name}", table_bytes(table))
    return len(results)


def _outcomes(
    detector: AnomalyDetector, references: Sequence[ImageReference], max_pixels: int
) -> Iterator[tuple[ImageReference, ScoringOutcome]]:
    """Score images in their order, a few batches at a time."""
    for group in batches(
        _sources_of(references, largest_file(max_pixels)), 4 * detector.runtime.plan.batch_size
    ):
        readable = [source for _, source in group if not isinstance(source, ImageError)]
        outcomes = detector.score_images(readable, max_pixels=max_pixels)
        for reference, source in group:
            if isinstance(source, ImageError):
                yield reference, UnreadableImage(b"", detector.reference, detector.calibration, source)
            else:
                yield reference, next(outcomes)


def _sources_of(
    references: Sequence[ImageReference], max_bytes: int
) -> Iterator[tuple[ImageReference, Path | bytes | ImageError]]:
    """Each image's path on this machine, or its bytes, or why it cannot be read."""
    fetch = functools.partial(_fetch, max_bytes=max_bytes)
    for parquet, group in groupby(references, lambda reference: reference.parquet):
        several = list(group)
        if parquet is None:
            yield from zip(several, ordered_map(fetch, several, workers=READERS), strict=True)
        else:
            yield from zip(several, _rows_of_parquet(parquet, several), strict=True)


def _fetch(reference: ImageReference, *, max_bytes: int) -> Path | bytes | ImageError:
    if "://" not in reference.image:
        return Path(reference.image)
    try:
        file_system, path = file_system_of(reference.image)
        size = file_system.size(path)
        if size is not None and size > max_bytes:
            return ImageError(reference.image, f"{size:,} bytes are more than any image has; leave it out")
        return bytes(file_system.cat_file(path))
    except FileNotFoundError:
        return ImageError(reference.image, "no such file; check the path")
    except Exception as error:  # each file system has errors of its own
        return ImageError(reference.image, f"cannot be read ({first_line(error)})")


def _rows_of_parquet(url: str, references: Sequence[ImageReference]) -> Iterator[bytes | ImageError]:
    """The bytes of consecutive rows, or why they cannot be read; as many as references, whatever the file is now."""
    rows = [reference.row or 0 for reference in references]
    done = rows[0]
    try:
        for row, content in _contents_of_parquet(url, rows[0], rows[-1] + 1):
            while done < row:  # a row group that cannot be read
                yield ImageError(url, f"row {done}: cannot be read; restore the file")
                done += 1
            yield content if content is not None else ImageError(url, f"row {row}: holds no image")
            done += 1
        reason = "is not there any more; restore the file"
    except FileNotFoundError:
        reason = "no such file; check the path"
    except Exception as error:  # each file system has errors of its own, and Arrow has several
        reason = f"cannot be read ({first_line(error)})"
    for row in range(done, rows[-1] + 1):
        yield ImageError(url, f"row {row}: {reason}")


def _contents_of_parquet(url: str, first: int, last: int) -> Iterator[tuple[int, bytes | None]]:
    """Rows and what they hold, a row group at a time; those of a damaged group are left out."""
    file_system, path = file_system_of(url)
    with file_system.open(path, "rb") as file:
        table, start = pyarrow.parquet.ParquetFile(file), 0
        column = _image_column(table.schema_arrow, url)
        for group in range(table.num_row_groups):
            end = start + table.metadata.row_group(group).num_rows
            values = None
            if start < last and end > first:
                with contextlib.suppress(OSError, pyarrow.ArrowException):
                    values = table.read_row_group(group, columns=[column]).column(column)
            if values is not None:
                if column == "image":
                    values = pyarrow.compute.struct_field(values, "bytes")
                for row in range(max(start, first), min(end, last)):
                    yield row, values[row - start].as_py()
            start = end


def finish_job(
    job: ScoringJob, detector: AnomalyDetector, *, fdr: float = 0.05, progress: Progress | None = None
) -> ScoringSummary:
    """Write the results in the published columns with q-values over the whole archive, and the summary.

    Memory is that of a few shards: p-values of a model have few values, which are counted.

    Args:
        job: A job whose shards are all there.
        detector: The model, whose held-out good parts drift is measured against.
        fdr: The false discovery rate to count images at.
        progress: Receives shards.

    Raises:
        DataError: A shard is missing or does not hold its images.
    """
    folder, progress = job.folder, progress or NullProgress()
    progress.stage("q-values", 2 * job.num_shards)
    counts: Counter[float] = Counter()
    verdicts: Counter[str] = Counter()
    sample: list[PartStatistics] = []
    for shard, table in _each_shard(job, ["p_value", "verdict", "statistics"]):
        if len(table) != job.images_of(shard):
            raise DataError(f"{folder.url}/shards/{shard_file(shard)}: not whole; delete it and run again")
        counts.update(table.column("p_value").drop_null().to_pylist())
        verdicts.update(verdict or "unreadable" for verdict in table.column("verdict").to_pylist())
        sample += _sampled(job, shard, table)
        progress.advance()
    q_values = q_values_of_counts(counts)

    def publish(pair: tuple[int, pyarrow.Table]) -> None:
        shard, table = pair
        folder.write(f"results/{shard_file(shard)}", table_bytes(_published(table, q_values)))

    for _ in ordered_map(publish, _each_shard(job), workers=READERS):
        progress.advance()
    summary = ScoringSummary(
        num_images=job.num_images,
        verdicts=dict(verdicts),
        fdr=fdr,
        discoveries=sum(number for p_value, number in counts.items() if q_values[p_value] <= fdr),
        drift=compare(detector.manifest.good_parts, sample, model=detector.name).to_dict(),
        results=folder.folder("results").url,
    )
    folder.write(SUMMARY_FILE, json.dumps(asdict(summary), indent=2).encode())
    return summary


def _sampled(job: ScoringJob, shard: int, table: pyarrow.Table) -> list[PartStatistics]:
    """The parts of a shard that drift is measured on: every so many of the archive."""
    step = max(1, job.num_images // DRIFT_SAMPLE)
    first = -shard * job.shard_size % step
    parts = table.column("statistics").take(list(range(first, len(table), step)))
    return [PartStatistics(**part) for part in parts.to_pylist() if part is not None]


def _each_shard(job: ScoringJob, columns: list[str] | None = None) -> Iterator[tuple[int, pyarrow.Table]]:
    def read(shard: int) -> tuple[int, pyarrow.Table]:
        return shard, read_table(job.folder.read(f"shards/{shard_file(shard)}"), columns)

    yield from ordered_map(read, range(job.num_shards), workers=READERS)


def _published(table: pyarrow.Table, q_values: Mapping[float, float]) -> pyarrow.Table:
    """The columns of the published schema."""
    column = [None if p is None else q_values[p] for p in table.column("p_value").to_pylist()]
    place = RESULT_SCHEMA.get_field_index("q_value")
    return table.drop_columns(["statistics"]).set_column(
        place, RESULT_SCHEMA.field(place), pyarrow.array(column, pyarrow.float64())
    )


def q_values_of_counts(counts: Mapping[float, int]) -> dict[float, float]:
    """Return the Benjamini-Hochberg q-value of each p-value.

    Args:
        counts: Number of images with each p-value.
    """
    p_values = np.array(sorted(counts))
    if len(p_values) == 0:
        return {}
    below = np.cumsum([counts[value] for value in p_values.tolist()])
    shares = p_values * below[-1] / below
    adjusted = np.minimum(np.minimum.accumulate(shares[::-1])[::-1], 1)
    return dict(zip(p_values.tolist(), adjusted.tolist(), strict=True))
