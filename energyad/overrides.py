"""Settings of a fit as a person types them: `border=8`, `coarse_strides=[]`, `dxmi.temperature=0.05`."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from energyad.dxmi.settings import DxMISettings
from energyad.errors import SettingsError, first_validation_error
from energyad.settings import FitSettings

DXMI = "dxmi."
FINITE = ConfigDict(allow_inf_nan=False)


def overridden(settings: FitSettings, overrides: Sequence[str]) -> FitSettings:
    """Settings with some values replaced, each by a text `NAME=VALUE`; the last one of a name counts.

    The value is JSON (`8`, `0.5`, `null`, `[8, 16]`) or a bare word; names of `DxMISettings` begin with `dxmi.`.
    Raises SettingsError, naming the text.
    """
    given: dict[str, dict[str, Any]] = {"": {}, DXMI: {}}
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"setting '{text}': give NAME=VALUE, as in border=8 or coarse_strides=[]")
        prefix = DXMI if name.startswith(DXMI) else ""
        own = name.removeprefix(prefix)
        given[prefix][own] = _value(settings.dxmi if prefix else settings, own, value, prefix=prefix)
    return replace(settings, dxmi=replace(settings.dxmi, **given[DXMI]), **given[""])


def _value(owner: FitSettings | DxMISettings, name: str, text: str, *, prefix: str) -> Any:
    hints = get_type_hints(type(owner))
    hints.pop("dxmi", None)  # is set value by value
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=1)
        hint = f"; did you mean {prefix}{near[0]}?" if near else ": energyad.FitSettings lists them"
        raise SettingsError(f"there is no setting '{prefix}{name}'{hint}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    try:
        return TypeAdapter(hints[name], config=FINITE).validate_python(value)
    except ValidationError as error:
        fault = first_validation_error(error)[1]
        rule = f"{fault[0].lower()}{fault[1:]} (values are JSON: 8, 0.5, null, [8, 16])"
        raise SettingsError(f"setting {prefix}{name} = {text}: {rule}") from error
