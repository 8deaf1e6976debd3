"""Options that several commands share."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from energyad.cli import console
from energyad.errors import SettingsError

DATABASE_NAME: Final = "energyad.db"
"""The line's database, where no option names another."""


def user_name() -> str:
    """Return who runs the program; the user's number where the system has no name for it, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"user {os.getuid()}" if hasattr(os, "getuid") else "unknown"


Quiet: TypeAlias = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=console.set_quiet, help="No progress, no messages; errors only."),
]
Debug: TypeAlias = Annotated[
    bool, typer.Option("--debug", callback=console.set_debug, help="Show stack traces and all warnings.")
]
Threads: TypeAlias = Annotated[
    int | None, typer.Option("--threads", min=1, metavar="N", help="Processor threads; all cores by default.")
]
Runtime: TypeAlias = Annotated[
    str,
    typer.Option(
        "--runtime",
        metavar="NAME",
        help="onnxruntime, openvino, torch or auto: torch on a CUDA device, else onnxruntime.",
    ),
]
Model: TypeAlias = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME_OR_DIR", help="A name under models/, or a folder."),
]
DataRoot: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        metavar="DIR",
        help="Where categories lie (MVTec layout); default $ENERGYAD_DATA_ROOT, else datasets/MVTecAD.",
    ),
]
Field: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="NAME", help="Of a data set of FiftyOne: a field that people filled."),
]
Download: TypeAlias = Annotated[
    bool, typer.Option("--download", help="Fetch MVTec AD if it is absent (5 GB, CC BY-NC-SA 4.0).")
]
SkipBad: TypeAlias = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out images that cannot be read instead of stopping.")
]
MaxMegapixels: TypeAlias = Annotated[
    float,
    typer.Option(
        "--max-megapixels",
        min=0.000001,
        metavar="N",
        help="Largest image that is decoded, in millions of pixels.",
    ),
]
Shadowed: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--shadow",
        metavar="VERSION_OR_DIR",
        help="Score by this beside the model, and act on nothing: candidate, a version that is kept, or a folder.",
    ),
]
Keys: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--keys", metavar="FILE", help="Of people's keys: on each line a name and the SHA-256 of a key."
    ),
]
IdentityHeader: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--identity-header",
        metavar="NAME",
        help="Where the proxy in front of this service says who asks, such as X-Forwarded-User.",
    ),
]
Owners: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--owner", metavar="NAME", help="Who may promote models; the others that are known review."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="JSON on standard output instead of a table.")]
TrustedKeys: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--trusted-key",
        metavar="FILE",
        help="Take models alone that this public key signed; default $ENERGYAD_TRUSTED_KEYS.",
    ),
]


def fields_of(labels: Path | None, field: list[str] | None) -> list[str]:
    """The fields of a labelled data set, none where all are meant.

    Raises:
        SettingsError: There are fields and no data set.
    """
    if labels is None and field:
        raise SettingsError(
            "--field NAME goes with a labelled data set: --labels PLACE, or `energyad label PLACE`"
        )
    return field or []
