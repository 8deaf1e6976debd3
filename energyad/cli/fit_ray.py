"""`energyad fit --engine ray`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energyad.cli import console
from energyad.errors import DataError, SettingsError

if TYPE_CHECKING:
    from energyad.data.datasets import Category


def fit_with_ray(
    categories: Sequence[Category],
    folder: Path,
    *,
    engine: str,
    address: str | None,
    threads: int | None,
    **options: Any,
) -> None:
    """Fit a model of each category on a Ray cluster, in `folder/NAME` each.

    Args:
        categories: To fit on.
        folder: For the models.
        engine: Its name, which must be ray.
        address: Of the cluster; None for this machine alone.
        threads: Of each fit; 1 where None.
        **options: Of `AnomalyDetector.fit`.

    Raises:
        SettingsError: Another engine.
        DataError: A fit failed; the other models are saved.
    """
    if engine != "ray":
        raise SettingsError(f"--engine {engine}: choose local or ray")
    from energyad.extras import require

    require("ray", "energyad fit --engine ray")
    from energyad.cli.progress import RichProgress
    from energyad.feedback.versions import read_history, save
    from energyad.integrations.ray_fitting import fit_categories
    from energyad.model.folder import require_place

    for category in categories:  # before minutes are spent
        require_place(folder / category.name)
        read_history(folder / category.name)
    failed = []
    with RichProgress() as progress:
        for fit in fit_categories(
            categories, address=address, threads=threads or 1, progress=progress, **options
        ):
            name = fit.category.name
            if fit.manifest is None or fit.contents is None:
                failed.append(name)
                console.fail(f"{name}: {fit.error}")
                continue
            save(folder / name, fit.manifest, fit.contents, action="fitted")
            threshold = fit.manifest.calibration.threshold
            console.say(f"{name:<12} {folder / name}  threshold {threshold:.4g}  {fit.seconds:.0f} s")
    if failed:
        raise DataError(
            f"{len(failed)} of {len(categories)} categories were not fitted: {', '.join(failed)}; see above"
        )
