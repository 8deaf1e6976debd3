"""`energyad score --engine ray`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from energyad.cli import console
from energyad.errors import SettingsError


def score_with_ray(
    sources: Sequence[str],
    *,
    engine: str,
    unfit: Sequence[str],
    model: Path,
    output: str | None,
    address: str | None,
    workers: int | None,
    fdr: float | None,
    max_pixels: int,
) -> int:
    """Score an archive on a Ray cluster.

    Args:
        sources: As the command line gives them.
        engine: Its name, which must be ray.
        unfit: Options that were given and that this engine does not know.
        model: The model folder.
        output: The folder of the job.
        address: Of the cluster; None for this machine alone.
        workers: Actors, of one thread each; None for all cores of the cluster.
        fdr: The false discovery rate to report on; None to report on 0.05.
        max_pixels: Files with more pixels are not decoded.

    Returns:
        The exit status of `energyad score`.

    Raises:
        SettingsError: Another engine, an option that this engine does not know, or no output.
    """
    if engine != "ray":
        raise SettingsError(f"--engine {engine}: choose local or ray")
    if unfit:
        raise SettingsError(f"{unfit[0]}: only with --engine local; ray writes Parquet to --output")
    if output is None:
        raise SettingsError("--engine ray: give --output DIR for the results, a path or URL")
    from energyad.cli.progress import RichProgress
    from energyad.extras import require

    require("ray", "energyad score --engine ray")
    from energyad.integrations.ray import score_archive

    with RichProgress() as progress:
        summary = score_archive(
            sources,
            model=model,
            output=output,
            address=address,
            workers=workers,
            fdr=0.05 if fdr is None else fdr,
            max_pixels=max_pixels,
            progress=progress,
        )
    rejected, unread = summary.verdicts.get("ng", 0), summary.verdicts.get("unreadable", 0)
    console.say(f"{rejected} of {summary.num_images} images above the threshold; see {summary.results}")
    console.say(
        f"{summary.discoveries} stand out of the archive at a false discovery rate of {summary.fdr:g}"
    )
    console.say(f"drift     {summary.drift['advice']}")
    if unread:
        console.fail(f"{unread} of {summary.num_images} images could not be read; their rows say why")
        return console.ERROR_STATUS
    return 1 if rejected else 0
