"""`energyad review`."""

from __future__ import annotations

from typing import Annotated

import typer

from energyad.cli.options import DATABASE_NAME, Debug, IdentityHeader, Keys, Model, Owners, Quiet, Threads
from energyad.cli.serve import serve


def review(
    model: Model = None,
    database: Annotated[
        str, typer.Option("--database", metavar="FILE_OR_URL", help="That of `energyad watch`.")
    ] = DATABASE_NAME,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="0: any free one.")
    ] = 8000,
    keys: Keys = None,
    identity_header: IdentityHeader = None,
    owner: Owners = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Open the page on which people say what is fine and what is a defect.

    \b
      energyad review --model gasket
      energyad teach --model gasket --good good_parts/

    It shows the results of a line that are not ok, and a random share of all, as long as the reviewer has not labelled
    them; the keys F, D and U say fine, defect and unsure. It is the page /review of `energyad serve --review DATABASE`,
    which has further options. Where ENERGYAD_API_KEY is set, the page asks for that key.
    """
    names = [model] if model is not None else None
    serve(
        model=names,
        host=host,
        port=port,
        review=database,
        keys=keys,
        identity_header=identity_header,
        owner=owner,
        threads=threads,
        quiet=quiet,
        debug=debug,
    )
