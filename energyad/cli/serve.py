"""`energyad serve`."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyad.cli import console
from energyad.cli.options import Debug, IdentityHeader, Keys, Owners, Quiet, Shadowed, Threads, TrustedKeys
from energyad.cli.shadow import open_shadow

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.feedback.queue import ReviewQueue
    from energyad.service.settings import ServiceSettings


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME_OR_DIR", help="A model; give it again for several."),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="0: any free one.")
    ] = 8000,
    max_upload: Annotated[
        float, typer.Option("--max-upload", metavar="MIB", help="Largest request, in MiB.")
    ] = 32.0,
    max_megapixels: Annotated[
        float, typer.Option("--max-megapixels", metavar="N", help="Largest image, in millions of pixels.")
    ] = 50.0,
    queue: Annotated[
        int, typer.Option("--queue", min=1, metavar="N", help="Requests taken at a time; more get 429.")
    ] = 16,
    decode_seconds: Annotated[
        float, typer.Option("--decode-seconds", metavar="N", help="Time for one image to be decoded.")
    ] = 10.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name by which browsers and proxies reach it."),
    ] = None,
    review: Annotated[
        str | None,
        typer.Option(
            "--review", metavar="FILE_OR_URL", help="A line's database, reviewed on the page /review."
        ),
    ] = None,
    shadow: Shadowed = None,
    keys: Keys = None,
    identity_header: IdentityHeader = None,
    owner: Owners = None,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Let other machines in without a key.")
    ] = False,
    trusted_key: TrustedKeys = None,
    threads: Threads = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve models over HTTP, with a page for people at /.

    \b
      energyad serve --model gasket
      curl -F file=@part.png http://127.0.0.1:8000/v1/score
      curl -F file=@part.png 'http://127.0.0.1:8000/v1/score?overlay=true' -o overlay.png
      curl -F files=@a.png -F files=@b.png http://127.0.0.1:8000/v1/score/batch

    Answers are the results that `energyad score --json` prints; /openapi.json describes them. /healthz, /readyz and
    /metrics are for whoever runs it. Where the variable ENERGYAD_API_KEY is set, requests must bring it as X-API-Key.

    After `energyad calibrate`, POST to /v1/models/gasket/reload. This needs the key, or where none is set the one that
    is printed at the start. Requests to another host than localhost, ADDRESS or the names of --allow-host are refused,
    and so are those that pages of other sites send. Ctrl-C or SIGTERM answers what was accepted, for 30 s at most, and
    ends with status 0.
    """
    from energyad.detector import AnomalyDetector
    from energyad.extras import require

    require("serve", "energyad serve")
    from energyad.service import server
    from energyad.service.app import create_app

    settings = _settings_from(
        *(host, keys, allow_host, owner, identity_header, without_key),
        *(max_upload, max_megapixels, queue, decode_seconds),
    )
    load = functools.partial(AnomalyDetector.load, threads=threads, trusted_keys=trusted_key)
    detectors, folders = _load_models(model, load)
    shadows = {
        name: open_shadow(folder, shadow, load) for name, folder in folders.items() if shadow is not None
    }
    with contextlib.ExitStack() as stack:
        queue_of_line = None if review is None else _open_review(stack, review, tuple(folders))
        app = create_app(
            detectors,
            settings,
            load=lambda name: load(folders[name]),
            review=queue_of_line,
            shadows=shadows,
            folders=folders,
        )
        listening = stack.enter_context(server.listen(host, port))
        address = _address(host, listening.getsockname()[1])
        say = functools.partial(
            _say_address, address, folders, settings, keys=keys, reviews=review is not None
        )
        server.run(app, listening, on_start=say)
    console.say("stopped")


def _settings_from(
    host: str,
    keys: Path | None,
    allow_host: list[str] | None,
    owner: list[str] | None,
    identity_header: str | None,
    without_key: bool,
    max_upload: float,
    max_megapixels: float,
    queue: int,
    decode_seconds: float,
) -> ServiceSettings:
    """Make the service's limits from the command's options, and the keys that clients have."""
    from energyad.service.settings import KEY_VARIABLE, MIB, ServiceSettings, read_keys, require_safe

    key = os.environ.get(KEY_VARIABLE)
    known = {} if keys is None else read_keys(keys)
    require_safe(host, asks_for_key=key is not None or bool(known), open_to_all=without_key)
    return ServiceSettings(
        max_upload=int(max_upload * MIB),
        max_pixels=int(max_megapixels * 1e6),
        max_body_bytes=int(8 * max_upload * MIB),
        queue=queue,
        decode_seconds=decode_seconds,
        host=host,
        allowed_hosts=tuple(allow_host or ()),
        api_key=key,
        keys=known,
        identity_header=identity_header,
        owners=frozenset(owner or ()),
    )


def _open_review(stack: contextlib.ExitStack, database: str, models: tuple[str, ...]) -> ReviewQueue:
    from energyad.feedback.queue import ReviewQueue
    from energyad.line.database import Database

    return ReviewQueue(stack.enter_context(Database(database, create=False)), models=models)


def _load_models(
    names: Sequence[str] | None, load: Callable[[Path], AnomalyDetector]
) -> tuple[list[AnomalyDetector], dict[str, Path]]:
    """Load models that score an image, the only one of models/ where no name is given; also their folders by name."""
    from energyad.model.folder import find_model

    folders = [find_model(name) for name in names] if names else [find_model(None)]
    detectors = [load(folder) for folder in folders]
    for detector in detectors:
        detector.check()
    return detectors, dict(zip((detector.name for detector in detectors), folders, strict=True))


def _say_address(
    address: str,
    folders: Mapping[str, Path],
    settings: ServiceSettings,
    *,
    keys: Path | None,
    reviews: bool,
) -> None:
    from energyad.service.settings import KEY_VARIABLE

    access = f"with the key in {KEY_VARIABLE}" if settings.api_key is not None else "without a key"
    if settings.keys:
        access = f"with the keys in {keys}"
    served = ", ".join(folder.name for folder in folders.values())
    console.say(f"serving {served} on {address} {access}")
    if reviews:
        console.say(f"review at {address}/review")
    if settings.api_key is None:
        console.say(f"reload needs X-API-Key: {settings.start_key}")


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
