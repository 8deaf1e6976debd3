"""`energyad models`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from energyad.cli import console
from energyad.cli.options import Debug, Json, Quiet, TrustedKeys
from energyad.errors import SettingsError


def models(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR] | push MODEL REGISTRY | pull REGISTRY/NAME [DIR] | key FILE | sign MODEL | verify MODEL",
            help="Where the models lie.",
        ),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The private key that signs, in PEM.")
    ] = None,
    trusted_key: TrustedKeys = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also the health of each energy's training by DxMI.")
    ] = False,
    history: Annotated[
        str | None,
        typer.Option(
            "--history", metavar="MODEL", help="List the versions of one model, and what each learned from."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """List the models and check their files; push one to a registry, or pull one from there; sign and verify one.

    \b
      energyad models
      energyad models --history gasket
      energyad models push gasket s3://plant/models
      energyad models pull s3://plant/models/gasket
      energyad models push gasket mlflow+https://mlflow.plant
      energyad models key plant.pem                          a new key, and plant.pem.pub for those who trust it
      energyad models sign gasket --key plant.pem
      energyad models verify gasket --trusted-key plant.pem.pub

    A registry is a folder, a URL, or `mlflow+` and the address of an MLflow server. It keeps each version that was
    pushed; `pull REGISTRY/NAME@DIGEST` fetches an earlier one. A model is checked on arrival and put in place as a
    whole, under models/NAME or at DIR.

    A model that is saved anew, as by `calibrate`, must be signed again. Where the variable ENERGYAD_TRUSTED_KEYS names
    public keys, no command takes a model that none of them signed.

    Exit status: 0, or 2 where a model is damaged.
    """
    from energyad.model.folder import DEFAULT_FOLDER, list_models

    if history is not None:
        _print_history(history, as_json=as_json)
        return
    words = words or [str(DEFAULT_FOLDER)]
    if words[0] in ("push", "pull") and len(words) > 1:
        _exchange(words)
        return
    if words[0] in ("key", "sign", "verify") and len(words) > 1:
        _sign(words, key, trusted_key)
        return
    if len(words) > 1:
        raise SettingsError(f"{words[1]}: give one folder of models, or push, pull, key, sign or verify")
    folder = Path(words[0])
    descriptions = [_describe(model_folder) for model_folder in list_models(folder)]
    if as_json:
        for model in descriptions:
            console.echo_json(json.dumps(model, ensure_ascii=False))
    elif descriptions:
        columns = ("name", "fitted", "backbone", "input", "size", "images", "threshold", "files")
        console.print_table(columns, [_cells(model) for model in descriptions], right=columns[3:7])
        if verbose:
            _print_health(descriptions)
    else:
        console.say(f"no models in {folder}/; make one with `energyad fit`, or try `energyad demo`")
    if any(model["problem"] is not None for model in descriptions):
        console.fail("damaged models; the column 'files' says what is wrong with them")
        raise typer.Exit(console.ERROR_STATUS)


def _exchange(words: list[str]) -> None:
    """Push or pull a model."""
    from energyad.extras import require
    from energyad.model.folder import DEFAULT_FOLDER, find_model

    require("storage", f"energyad models {words[0]}")
    from energyad.feedback.versions import note
    from energyad.integrations.registry import pull_model, push_model

    if words[0] == "push":
        if len(words) != 3:
            raise SettingsError("push: give a model and a registry, such as push gasket s3://plant/models")
        typer.echo(push_model(find_model(words[1]), words[2]))
        console.say(f"pushed    {words[1]} to {words[2]}")
        return
    if len(words) > 3:
        raise SettingsError("pull: give REGISTRY/NAME, and the folder that it goes to")
    name = words[1].rstrip("/").rsplit("/", 1)[-1].split("@")[0]
    folder = Path(words[2]) if len(words) == 3 else DEFAULT_FOLDER / name
    typer.echo(pull_model(words[1], folder))
    note(folder, "installed")
    console.say(f"pulled    {folder}")


def _sign(words: list[str], key: Path | None, trusted: list[Path] | None) -> None:
    """Make a key, sign a model, or verify one."""
    from energyad.model import signing
    from energyad.model.folder import find_model, open_model, sign_model

    if len(words) > 2:
        raise SettingsError(f"{words[2]}: `models {words[0]}` takes one name")
    if words[0] == "key":
        public = signing.make_keys(Path(words[1]))
        console.say(f"private   {words[1]}\npublic    {public}")
        typer.echo(signing.number_of(public))
    elif words[0] == "sign":
        if key is None:
            raise SettingsError(
                "sign: give the private key with --key FILE; `energyad models key FILE` makes one"
            )
        folder = find_model(words[1])
        typer.echo(sign_model(folder, key))
        console.say(f"signed    {folder}")
    else:
        keys = signing.trusted_keys() if trusted is None else trusted
        if not keys:
            raise SettingsError(
                f"verify: give a public key with --trusted-key FILE, or set {signing.TRUSTED_KEYS_VARIABLE}"
            )
        folder = find_model(words[1])
        open_model(folder, trusted_keys=keys)
        console.say(f"verified  {folder}")


def _print_history(name: str, *, as_json: bool) -> None:
    from energyad.feedback.versions import read_history, version
    from energyad.model.folder import find_model

    folder = find_model(name)
    entries = read_history(folder)
    if as_json:
        for entry in entries:
            console.echo_json(json.dumps(asdict(entry), ensure_ascii=False))
        return
    rows = [
        (
            entry.time[:16].replace("T", " "),
            entry.action,
            entry.version,
            entry.details,
            entry.by,
            "yes" if entry.forced else "",
        )
        for entry in entries
    ]
    console.print_table(("when", "what", "version", "learned from", "by", "forced"), rows)
    console.say(f"in charge  version {version(folder)}")


def _describe(folder: Path) -> dict[str, Any]:
    from energyad.errors import ModelError
    from energyad.model.folder import problems, read_manifest

    model: dict[str, Any] = {"name": folder.name, "folder": str(folder)}
    try:
        manifest = read_manifest(folder)
    except ModelError as error:
        return {**model, "problem": str(error)}
    return {
        **model,
        "created": manifest.created,
        "backbone": manifest.source,
        "image_size": manifest.input.image_size,
        "bytes": sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
        "num_images": manifest.provenance.num_images,
        "threshold": manifest.calibration.threshold,
        "training_health": [
            {**asdict(health), "verdict": health.verdict()} for health in manifest.training_health
        ],
        "problem": next(problems(folder, manifest), None),
    }


def _print_health(descriptions: list[dict[str, Any]]) -> None:
    columns = ("name", "samples / data", "at bound", "mean square", "AUROC", "objective", "training")
    rows = [
        (
            model["name"],
            f"{health['energy_ratio']:.2f}",
            f"{health['bound_share']:.0%}",
            f"{health['mean_square_ratio']:.2f}",
            f"{health['classifier_auroc']:.3f}",
            f"{health['objective_before']:.3g} → {health['objective_after']:.3g}",
            health["verdict"],
        )
        for model in descriptions
        for health in model.get("training_health", ())
    ]
    console.print_table(columns, rows, right=columns[1:6])


def _cells(model: dict[str, Any]) -> tuple[str, ...]:
    if "created" not in model:
        return (model["name"], *[""] * 6, model["problem"])
    return (
        model["name"],
        model["created"][:16].replace("T", " "),
        model["backbone"],
        "{1} × {0} px".format(*model["image_size"]),
        f"{model['bytes'] / 1e6:.1f} MB",
        str(model["num_images"]),
        f"{model['threshold']:.4g}",
        "ok" if model["problem"] is None else model["problem"],
    )
