"""Laws of settings that a person types."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from energyad.dxmi.settings import DxMISettings
from energyad.errors import SettingsError
from energyad.overrides import overridden
from energyad.settings import FitSettings


def texts(values: dict[str, object], prefix: str = "") -> list[str]:
    return [f"{prefix}{name}={json.dumps(value)}" for name, value in values.items() if name != "dxmi"]


def test_every_setting_can_be_typed_and_is_what_it_was() -> None:
    settings = FitSettings(
        border=8,
        coarse_strides=(),
        precision="int8",
        white_level=4095,
        review_rate=None,
        tiles=(1, 3),
        dxmi=DxMISettings(
            start="noised_data", temperature=0.3, beta_start=0.02, beta_end=0.1, trained_steps=(2, 6)
        ),
    )
    typed = texts(settings.to_dict()) + texts(settings.dxmi.to_dict(), "dxmi.")
    found = overridden(FitSettings(), typed)
    assert found == settings and found.to_dict() == settings.to_dict()


def test_what_is_not_named_stays_and_the_last_of_a_name_counts() -> None:
    base = FitSettings(seed=7, dxmi=DxMISettings(num_steps=3))
    found = overridden(base, ["border=8", "dxmi.temperature=0.5", "border=24"])
    assert found == replace(base, border=24, dxmi=replace(base.dxmi, temperature=0.5))
    assert overridden(base, []) == base


def test_a_number_is_of_its_settings_kind_so_that_one_value_has_one_hash() -> None:
    assert overridden(FitSettings(), ["lighting=0"]).to_dict() == FitSettings(lighting=0.0).to_dict()
    assert isinstance(overridden(FitSettings(), ["lighting=0"]).lighting, float)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("border", ("'border'", "NAME=VALUE")),
        ("coarse_stride=[]", ("coarse_stride", "coarse_strides")),
        ("dxmi.temprature=0", ("dxmi.temprature", "dxmi.temperature")),
        ("dxmi=1", ("'dxmi'",)),
        ("warmth=1", ("'warmth'", "FitSettings")),
        ("border=wide", ("border", "wide", "integer")),
        ("border=8.5", ("border", "8.5", "integer")),
        ("strides=8,16", ("strides", "8,16", "[8, 16]")),
        ("smoothing=Infinity", ("smoothing", "finite")),
        ("dxmi.start=nowhere", ("dxmi.start", "noised_data")),
        ("strides=[]", ("strides", "at least one")),
        ("coarse_strides=[8,8]", ("coarse_strides", "different")),
        ("coarse_strides=[0]", ("coarse_strides", "1 up")),
        ("pretrain_lr=0", ("pretrain_lr", "positive")),
        ("initial_energy=-1", ("initial_energy", "positive")),
        ("pretrain_batch_size=0", ("pretrain_batch_size", "at least 1")),
        ("seed=9223372036854775808", ("seed", "2^63")),
        ("dxmi.chains_per_update=0", ("chains_per_update", "at least 1")),
        ("dxmi.decay_iterations=0", ("decay_iterations", "at least 1")),
        ("dxmi.hidden_widths=[64,0]", ("hidden_widths", "at least 1")),
        ("dxmi.final_lr_fraction=-1", ("final_lr_fraction", "[0, 1]")),
    ],
)
def test_what_cannot_be_set_is_refused_in_one_line(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as refused:
        overridden(FitSettings(), [text])
    assert all(word in str(refused.value) for word in words)
    assert "\n" not in str(refused.value)
