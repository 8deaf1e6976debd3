"""`energyad promote` and `energyad rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Quiet, user_name

Name = Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A name under models/, or a folder.")]


def promote(
    model: Name = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also where it finds less, or promises less, than before.")
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Put the candidate of a model in charge.

    \b
      energyad promote gasket

    A running `watch` goes over to it between two images; `serve` does when POST /v1/models/gasket/reload says so. The
    version before is kept for `energyad rollback`.
    """
    from energyad.feedback import versions
    from energyad.model.folder import find_model

    folder = find_model(model)
    console.say(
        f"promoted   version {versions.promote(folder, force=force, by=user_name())} is in charge of {folder}"
    )


def rollback(model: Name = None, quiet: Quiet = False, debug: Debug = False) -> None:
    """Put the version of a model in charge that was there before the last promotion.

    \b
      energyad rollback gasket

    A running `watch` goes over to it between two images; `serve` does when POST /v1/models/gasket/reload says so.
    """
    from energyad.feedback import versions
    from energyad.model.folder import find_model

    folder = find_model(model)
    console.say(f"back       version {versions.rollback(folder, by=user_name())} is in charge of {folder}")
