"""Settings as a person writes them: `features.border_margin=8` on the command line, or a TOML file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from energyad.errors import SettingsError, os_reason
from energyad.settings.fit_settings import FitSettings, flat, require_known
from energyad.settings.reference import settings_reference

NONE = "none"


def overridden(settings: FitSettings, overrides: Sequence[str]) -> FitSettings:
    """Replace some values, each by a text `GROUP.NAME=VALUE`; the last one of a name counts.

    The value is JSON (`8`, `0.5`, `[8, 16]`), `none` or a bare word.

    Raises:
        SettingsError: naming the setting.
    """
    values = {}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            example = "heatmap.smoothing=8 or features.coarse_strides=[]"
            raise SettingsError(f"setting '{text}': give GROUP.NAME=VALUE, as in {example}")
        require_known(name)
        values[name] = parsed(value)
    return settings.with_values(values)


def parsed(text: str) -> Any:
    """A value from its text."""
    if text == NONE:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def to_toml(settings: FitSettings) -> str:
    """Write all settings as TOML, with a comment line for each. TOML has no null: none is written "none"."""
    import tomlkit

    values = settings.values()
    document = tomlkit.document()
    tables: dict[str, Any] = {"": document}
    for row in sorted(
        settings_reference(), key=lambda row: "." in row.name
    ):  # a TOML file has its tables last
        group, _, name = row.name.rpartition(".")
        if group not in tables:
            tables[group] = tomlkit.table()
            document.add(tomlkit.nl())
            document.add(group, tables[group])
        tables[group].add(tomlkit.comment(f"{row.description} Legal: {row.legal}."))
        tables[group].add(name, _toml_value(values[row.name]))
    return tomlkit.dumps(document)


def read_toml(path: Path, settings: FitSettings) -> FitSettings:
    """Replace the values that a TOML file holds; it may hold any part of the settings.

    Raises:
        SettingsError: naming the file, where it cannot be read, and for an unknown name or an illegal value.
    """
    try:
        nested = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {os_reason(error)}") from error
    except ValueError as error:  # of the encoding, or of TOML
        raise SettingsError(f"{path}: is not TOML: {error}") from error
    values = {name: None if value == NONE else value for name, value in flat(nested).items()}
    try:
        return settings.with_values(values)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def _toml_value(value: Any) -> Any:
    return NONE if value is None else list(value) if isinstance(value, tuple) else value
