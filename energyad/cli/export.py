"""`energyad export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Model, Quiet


def export(
    model: Model = None,
    kind: Annotated[
        str, typer.Option("--format", metavar="NAME", help="onnx, openvino, pt2 (torch.export) or triton.")
    ] = "onnx",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: the model's name in this folder."),
    ] = None,
    verify: Annotated[
        list[str] | None,
        typer.Option(
            "--verify", metavar="IMAGES", help="Compare with PyTorch on these; may be given several times."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0.0, help="Relative difference that --verify lets pass.")
    ] = 1e-4,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a model as one file for other programs, with its threshold and input beside it as JSON.

    \b
      energyad export --model gasket
      energyad export --model gasket --format openvino --verify test_images/

    The graph takes RGB bytes at the size the JSON states, in batches of any size, and gives scores and heatmaps;
    normalisation is inside. With --verify, the file is run beside PyTorch on real images; status 2 where a score or a
    heatmap differs by more than the tolerance, or any verdict.
    """
    from energyad.extras import require

    require("fit", "energyad export")
    from energyad.detector import AnomalyDetector, export
    from energyad.images.finding import find_images
    from energyad.model.folder import find_model

    paths = find_images(verify) if verify else []
    folder = find_model(model)
    detector = AnomalyDetector.load(folder)
    path = output or Path(folder.name + export.SUFFIXES.get(kind, ""))
    written = export.export_model(detector, kind, path)
    megabytes = sum(path.stat().st_size for path in (written.graph, *written.others)) / 1e6
    names = ", ".join(map(str, (written.graph, *written.others)))
    console.say(f"wrote     {names} ({megabytes:.1f} MB) and {written.metadata}")
    if paths:
        agreement = export.verify(detector, written, paths, tolerance=tolerance)
        count = "1 image" if agreement.num_images == 1 else f"{agreement.num_images} images"
        typer.echo(
            f"verified  on {count} against PyTorch: score within {agreement.score:.1e}, heatmap within "
            f"{agreement.heatmap:.1e} (tolerance {tolerance:.0e}), every verdict the same"
        )
