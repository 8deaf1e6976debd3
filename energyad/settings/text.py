"""Settings as a person types them: `features.border_margin=8`, `features.coarse_strides=[]`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from energyad.errors import SettingsError
from energyad.settings.fit_settings import FitSettings, require_known

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
