"""Scoring of an archive on a Ray cluster: actors of Ray Data that load the model once. Needs the extra `ray`.

Ray Data hands the shards of a job to its actors, starts actors anew that die, and gives their shards to others. Reading
and writing stay here: Ray's readers stop at an image that cannot be read and decode by other rules, and the files that
its writer makes have other names after each start, so that a job could not go on after its driver was killed.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.data

from energyad.detector import AnomalyDetector
from energyad.errors import DataError, EnergyadError, first_line
from energyad.images.reading import DEFAULT_MAX_PIXELS
from energyad.integrations.model_files import install_model
from energyad.integrations.scoring_job import (
    SHARD_SIZE,
    ScoringJob,
    ScoringSummary,
    finish_job,
    open_job,
    score_shard,
)
from energyad.progress import NullProgress, Progress
from energyad.runtimes.plan import available_threads


def score_archive(
    sources: Sequence[str],
    *,
    model: Path,
    output: str,
    address: str | None = None,
    workers: int | None = None,
    shard_size: int = SHARD_SIZE,
    fdr: float = 0.05,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress | None = None,
) -> ScoringSummary:
    """Score an archive on a Ray cluster, each image once, also where drivers and workers are killed on the way.

    After a kill, the same call goes on where the job was.

    Args:
        sources: Files, folders, globs, URLs, and Parquet files of paths or bytes; all machines must reach them.
        model: The model folder.
        output: A path or URL that all machines reach.
        address: Of the cluster, such as `auto` or `ray://head:10001`; None for this machine alone.
        workers: Actors, of one core and one thread each; all cores of the cluster by default.
        shard_size: Images of a shard, which a worker scores again that was killed.
        fdr: The false discovery rate that the summary counts images at.
        max_pixels: Files with more pixels are not decoded.
        progress: Receives stages and images.

    Raises:
        DataError: There is no image, the cluster cannot be reached, or the output folder holds another job.

    Example:
        >>> summary = score_archive(["s3://archive/2026"], model=Path("models/gasket"), output="s3://archive/scores")
        >>> summary.verdicts
        {'ok': 9986211, 'ng': 13702, 'unreadable': 87}
    """
    progress = progress or NullProgress()
    job = open_job(sources, model, output, shard_size=shard_size, max_pixels=max_pixels, progress=progress)
    pending = job.pending()
    progress.stage("scoring", job.num_images)
    progress.advance(job.num_images - sum(map(job.images_of, pending)))
    if pending:
        with ray_cluster(address, cores=workers):
            for images in _scored_shards(job, pending, workers):
                progress.advance(images)
    detector = AnomalyDetector.load(model, threads=1)
    return finish_job(job, detector, fdr=fdr, progress=progress)


@contextmanager
def ray_cluster(address: str | None, *, cores: int | None = None) -> Iterator[None]:
    """Connect to a Ray cluster in a `with` block; a connection that was there before stays.

    Args:
        address: Of the cluster, such as `auto` or `ray://head:10001`; None for this machine alone.
        cores: Of this machine, where it is alone; all by default.

    Raises:
        DataError: The cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray Data's own actors are warned about
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init("local", num_cpus=cores or available_threads(), include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except Exception as error:  # Ray raises bare ones too, such as where a node starts too slowly
        where = "Ray on this machine" if address is None else f"--address {address}"
        raise DataError(f"{where}: no Ray cluster ({first_line(error)})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _scored_shards(job: ScoringJob, pending: Sequence[int], workers: int | None) -> Iterator[int]:
    """Score shards on the cluster; yields the number of images of each that is done."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    cores = int(ray.cluster_resources().get("CPU", 1))
    shards = ray.data.from_items([{"shard": shard} for shard in pending], override_num_blocks=len(pending))
    done = shards.map_batches(
        ShardScorer,
        fn_constructor_args=(job,),
        batch_size=None,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=max(1, min(workers or cores, cores, len(pending)))),
    )
    for row in done.iter_rows():
        if row["error"]:
            raise EnergyadError(row["error"])
        yield int(row["images"])


class ShardScorer:
    """An actor: loads the model of a job once, on one thread, and scores shards."""

    def __init__(self, job: ScoringJob) -> None:
        self.job = job
        stored = job.folder.folder("model")
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "model"
            install_model(lambda name, _: stored.read(name), place, source=stored.url, digest=job.model)
            self.detector = AnomalyDetector.load(place, threads=1, runtime="onnxruntime")

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Score the shards of a batch; an error is returned, since Ray would show its own stack traces."""
        images, error = 0, ""
        try:
            for shard in batch["shard"].tolist():
                images += score_shard(self.job, shard, self.detector)
        except EnergyadError as failure:
            error = str(failure)
        return {"images": [images], "error": [error]}
