"""A station's file from a few answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from energyad.errors import SettingsError, os_reason
from energyad.station.config import AlignConfig, ChecksConfig, examine_station


@dataclass(frozen=True)
class Answers:
    """What a new station is to be.

    Attributes:
        name: Of the station.
        model: Of all views.
        views: Name and folder of each view.
        images: Where scored images are moved to; None leaves them where they are.
        budget: Seconds for a verdict; None for no budget.
        mqtt: Host and port of a broker; None for no such output, as below.
        modbus: Port of a Modbus server.
        opcua: Port of an OPC UA server.
        webhook: Address that parts are posted to.
        archive: Folder of tables.
        metrics: Port that Prometheus reads.
        checks: Limits for the frames of all views.
        align: How the parts of all views are aligned.
    """

    name: str
    model: str
    views: Sequence[tuple[str, str]]
    images: str | None = None
    budget: float | None = None
    mqtt: tuple[str, int] | None = None
    modbus: int | None = None
    opcua: int | None = None
    webhook: str | None = None
    archive: str | None = None
    metrics: int | None = None
    checks: ChecksConfig | None = None
    align: AlignConfig | None = None


def station_text(answers: Answers) -> str:
    """Return the text of a station's file, with a comment where a choice is to be made later."""
    parts = [
        "# A station of energyad. Paths are relative to this file; all settings: docs/how-to/station.md",
        f"name = {_text(answers.name)}\nmodel = {_text(answers.model)}",
    ]
    checks = "" if answers.checks is None else f"\nchecks = {_inline(answers.checks)}"
    align = "" if answers.align is None else f"\nalign = {_inline(answers.align)}"
    parts += [
        f"[[views]]\nname = {_text(name)}\nfolder = {_text(folder)}{checks}{align}"
        for name, folder in answers.views
    ]
    if len(answers.views) > 1:
        parts.append(
            "[part]\ndeadline = 5.0  # seconds after which a view is missing, and the part for review"
        )
    if answers.budget is not None:
        parts.append(f'[latency]\nbudget = {answers.budget}  # seconds\nmissed = "review"  # or "ng"')
    if answers.images is not None:
        parts.append(
            f"[images]  # scored images are moved there\nfolder = {_text(answers.images)}\n"
            "ok_share = 1.0  # of the images that are ok; the others are deleted\nquota_gib = 50.0"
        )
    if answers.mqtt is not None:
        host, port = answers.mqtt
        parts.append(f"[mqtt]\nhost = {_text(host)}\nport = {port}")
    for name, own_port in (("modbus", answers.modbus), ("opcua", answers.opcua)):
        if own_port is not None:
            parts.append(
                f'[{name}]\nhost = "127.0.0.1"  # "0.0.0.0": machines of the network may connect\nport = {own_port}\n'
                "acknowledge = true  # a part stays until its sequence number was written back"
            )
    if answers.webhook is not None:
        parts.append(f"[webhook]\nurl = {_text(answers.webhook)}")
    if answers.archive is not None:
        parts.append(f"[archive]\nfolder = {_text(answers.archive)}\ndays = 90")
    if answers.metrics is not None:
        parts.append(f'[metrics]\nhost = "127.0.0.1"\nport = {answers.metrics}')
    return "\n\n".join(parts) + "\n"


def write_station(path: Path, answers: Answers) -> None:
    """Write a new station's file, and make the folders of its views.

    Args:
        path: The file.
        answers: What the station is to be.

    Raises:
        SettingsError: The file exists or cannot be written, or an answer is not legal; nothing is left behind then.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(station_text(answers))
    except FileExistsError:
        raise SettingsError(f"{path}: exists; edit it, or give another name") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {os_reason(error)}; give another path") from error
    config, faults = examine_station(path)
    if config is None:
        path.unlink()
        raise SettingsError(faults[0])
    for view in config.views:
        view.folder.mkdir(parents=True, exist_ok=True)


def _inline(table: BaseModel) -> str:
    """Numbers and texts as a table on one line."""
    values = table.model_dump(mode="json", exclude_none=True)
    texts = {name: _text(value) if isinstance(value, str) else str(value) for name, value in values.items()}
    return f"{{{', '.join(f'{name} = {text}' for name, text in texts.items())}}}"


def _text(value: str) -> str:
    """A string of TOML."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
