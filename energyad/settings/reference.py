"""The reference of all settings, generated from their declaration."""

from __future__ import annotations

from dataclasses import dataclass

from energyad.declaration import Declaration, SettingsGroup, declarations, shown
from energyad.settings.fit_settings import FitSettings, groups


@dataclass(frozen=True)
class SettingRow:
    """One setting. default: as a person writes it."""

    name: str
    type: str
    default: str
    legal: str
    description: str


def settings_reference() -> list[SettingRow]:
    """List every setting of a fit, in the order of `FitSettings`."""
    defaults = FitSettings()
    inner = [
        _row(group, declared, name=f"{name}.{declared.name}")
        for name, group in groups().items()
        for declared in declarations(type(group))
    ]
    return inner + [_row(defaults, declared, name=declared.name) for declared in declarations(FitSettings)]


def _row(defaults: SettingsGroup, declared: Declaration, *, name: str) -> SettingRow:
    default = shown(getattr(defaults, declared.name))
    return SettingRow(name, declared.type, default, declared.legal, declared.description)
