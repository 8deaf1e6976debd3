"""Fits of many categories on a Ray cluster, a category a task. Needs the extras `ray` and `fit`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import ray

from energyad.data.datasets import Category
from energyad.detector import AnomalyDetector
from energyad.errors import EnergyadError, first_line
from energyad.integrations.ray import ray_cluster
from energyad.model.manifest import Manifest
from energyad.progress import NullProgress, Progress

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class CategoryFit:
    """The fit of one category.

    Attributes:
        category: What was fitted on.
        seconds: That it took, 0 where its worker died.
        manifest: Of the model; None where the fit failed.
        contents: Files of the model by name.
        error: One line that says why the fit failed; None where it did not.
    """

    category: Category
    seconds: float
    manifest: Manifest | None = None
    contents: dict[str, bytes] | None = None
    error: str | None = None


def fit_categories(
    categories: Sequence[Category],
    *,
    address: str | None = None,
    threads: int = 1,
    progress: Progress | None = None,
    **options: Any,
) -> Iterator[CategoryFit]:
    """Fit a model of each category, as many at a time as there are cores.

    On one thread, the tensors and the threshold are those of fits one after the other. A fit that fails costs no other
    one its model.

    Args:
        categories: Their images must be where all machines of the cluster reach them.
        address: Of the cluster, such as `auto`; None for this machine alone.
        threads: And cores of each fit.
        progress: Receives the number of fits that have ended.
        **options: Of `AnomalyDetector.fit`, for each of them.

    Yields:
        Each fit as it ends.

    Raises:
        DataError: The cluster cannot be reached.

    Example:
        >>> for fit in fit_categories([open_category(name) for name in present_categories()]):
        ...     print(fit.category.name, fit.error or f"{fit.seconds:.0f} s")
    """
    progress = progress or NullProgress()
    progress.stage("fitting", len(categories))
    fit = partial(_fit, threads=threads, options=options)
    for category, done in run_side_by_side(fit, categories, address=address, cores=threads):
        yield CategoryFit(category, 0.0, error=done) if isinstance(done, str) else done
        progress.advance()


def run_side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item], *, address: str | None, cores: int
) -> Iterator[tuple[Item, Result | str]]:
    """Call a function on items on a Ray cluster, each call a task.

    Args:
        function: What is called; it and the items can be pickled.
        items: Of each call.
        address: Of the cluster; None for this machine alone.
        cores: Of each call.

    Yields:
        Each item as its call ends, and what the call returned, or one line that says why it did not.

    Raises:
        DataError: The cluster cannot be reached.
    """

    def call(item: Item) -> Result:  # Ray takes no partial
        return function(item)

    with ray_cluster(address):
        # A worker that died for want of memory would die again beside the others.
        remote = ray.remote(num_cpus=cores, max_retries=0)(call)
        pending = {remote.remote(item): item for item in items}
        while pending:
            (done,), _ = ray.wait(list(pending), num_returns=1)
            item = pending.pop(done)
            try:
                yield item, ray.get(done)
            except ray.exceptions.RayTaskError as error:
                yield item, first_line(error.cause)
            except ray.exceptions.RayError as error:
                yield item, f"its worker died ({first_line(error)}); run it again"


def _fit(category: Category, *, threads: int, options: dict[str, Any]) -> CategoryFit:
    started = time.perf_counter()
    try:
        detector = AnomalyDetector.fit(category.train_good, name=category.name, threads=threads, **options)
    except EnergyadError as error:
        return CategoryFit(category, time.perf_counter() - started, error=str(error))
    seconds = time.perf_counter() - started
    return CategoryFit(category, seconds, detector.manifest, detector.contents)
