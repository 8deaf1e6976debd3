"""`energyad demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Quiet, Threads

if TYPE_CHECKING:
    from energyad.data.datasets import Category
    from energyad.detector import AnomalyDetector

NOTE = (
    "Synthetic: every image here was rendered by energyad. The figures show that the program works; "
    "they say nothing about real parts."
)

# Fewer than the defaults, so that a first look takes a minute or two.
WARMUP_ITERATIONS, ITERATIONS = 1500, 200


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where everything goes.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of the images and the fit.")] = 0,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Try it all on synthetic images, in a minute or two.

    Renders a part with six kinds of flaw, fits, scores, evaluates, and writes a picture sheet and an HTML page.
    Needs no data and no network, and writes to demo/ only. Nothing in it is a photograph.
    """
    started = time.perf_counter()
    from energyad.extras import require

    require("fit", "energyad demo")
    from energyad.cli.evaluate import print_evaluation
    from energyad.cli.progress import RichProgress
    from energyad.data.demo import DEMO_NAME, render_demo
    from energyad.evaluation.evaluate import evaluate
    from energyad.report import write_report

    console.say(f"SYNTHETIC images of a bottle mouth, rendered into {output / 'datasets'}/ (no photographs)")
    category = render_demo(output / "datasets", seed=seed)
    folder = output / "models" / DEMO_NAME
    detector = _fit(category, folder, seed=seed, threads=threads)
    with RichProgress() as progress:
        evaluation = evaluate(detector, category, progress=progress)
    console.say("")
    print_evaluation(evaluation)
    write_report(output, detector, evaluation, title=f"{DEMO_NAME} (synthetic images)", note=NOTE)
    console.say(f"\n{NOTE}")
    console.say(f"look at   {output / 'index.html'}   and   {output / 'sheet.png'}")
    console.say(f"took      {time.perf_counter() - started:.0f} s")
    console.say(f"next      energyad score {category.root / 'test'} --model {folder} --heatmaps")
    console.say("          energyad fit --images YOUR_GOOD_PARTS/ --name PART")


def _fit(category: Category, folder: Path, *, seed: int, threads: int | None) -> AnomalyDetector:
    from energyad.model.folder import require_place

    require_place(folder)
    from energyad.cli.progress import RichProgress
    from energyad.detector import AnomalyDetector
    from energyad.settings import FitSettings

    with RichProgress() as progress:
        detector = AnomalyDetector.fit(
            category.train_good,
            name=category.name,
            settings=FitSettings().with_values(
                {"seed": seed, "energy.pretrain_steps": WARMUP_ITERATIONS, "dxmi.iterations": ITERATIONS}
            ),
            threads=threads,
            progress=progress,
        )
    detector.save(folder)
    return detector
