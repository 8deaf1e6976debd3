"""`energyad drift`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Json, Model, Quiet

if TYPE_CHECKING:
    from energyad.line.drift import Drift


def drift(
    results: Annotated[
        str,
        typer.Argument(
            metavar="RESULTS",
            help="A file of `energyad watch` or `energyad score --json`, or the line's database.",
        ),
    ],
    model: Model = None,
    window: Annotated[
        int, typer.Option("--window", min=1, metavar="N", help="How many of the latest parts count.")
    ] = 200,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tell whether the latest parts still look like the good parts the threshold rests on.

    \b
      energyad drift results.jsonl --model gasket
      energyad drift results.jsonl --json | jq .state
      energyad drift energyad.db --model gasket

    Scores, brightness, contrast, sharpness and mean energy are each compared by the Kolmogorov-Smirnov test (how sure)
    and the population stability index, PSI (how large); both must speak for a shift. Results of `score --json` hold
    scores alone.

    \b
    Exit status: 0  no shift, or too few parts to tell
                 1  shifted: the advice says what to do
                 2  an error
    """
    from energyad.line.journal import drift_of_results
    from energyad.model.folder import find_model, read_manifest

    folder = find_model(model)
    manifest = read_manifest(folder)
    measured = drift_of_results(results, manifest, window=window)
    if as_json:
        console.echo_json(json.dumps(measured.to_dict(), ensure_ascii=False))
    else:
        _print(measured)
    raise typer.Exit(1 if measured.state == "shifted" else 0)


def _print(measured: Drift) -> None:
    columns = ("quantity", "then", "now", "KS", "p", "PSI", "PSI limit", "")
    rows = [
        (
            shift.label,
            *(f"{value:.4g}" for value in (shift.then, shift.now, shift.ks)),
            f"{shift.p_value:.2g}",
            *(f"{value:.3g}" for value in (shift.psi, shift.psi_limit)),
            "shifted" if shift.shifted else "",
        )
        for shift in measured.shifts
    ]
    if rows:
        console.print_table(columns, rows, right=columns[1:-1])
    typer.echo(
        f"{measured.state}: the latest {measured.window} parts against {measured.reference} held-out good ones"
    )
    (console.warn if measured.state == "shifted" else console.say)(measured.advice)
