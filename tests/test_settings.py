"""Laws of settings: every one is declared, can be typed, and is refused in one line where it is not legal."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from energyad.errors import SettingsError
from energyad.settings import FitSettings, settings_reference
from energyad.settings.text import overridden, read_toml, to_toml

OTHER = {
    "features.border_margin": 8,
    "features.coarse_strides": (),
    "features.precision": "int8",
    "input.white_level": 4095,
    "input.tiles": (1, 3),
    "threshold.review_rate": None,
    "dxmi.temperature": 0.3,
    "dxmi.beta_start": 0.02,
    "dxmi.trained_steps": (2, 6),
    "seed": 7,
}


def test_every_setting_can_be_typed_and_keeps_its_value() -> None:
    settings = FitSettings().with_values(OTHER)
    typed = [f"{name}={json.dumps(value)}" for name, value in settings.values().items()]
    assert overridden(FitSettings(), typed) == settings
    assert len(typed) == len(settings_reference()) > 50


def test_settings_survive_json() -> None:
    settings = FitSettings().with_values(OTHER)
    again = FitSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings and again.to_dict() == settings.to_dict()


def test_settings_survive_toml(tmp_path: Path) -> None:
    settings = FitSettings().with_values(OTHER)
    (tmp_path / "part.toml").write_text(to_toml(settings), encoding="utf-8")
    again = read_toml(tmp_path / "part.toml", FitSettings())
    assert again == settings and again.to_dict() == settings.to_dict()


def test_each_setting_in_toml_has_a_comment_line() -> None:
    lines = to_toml(FitSettings()).splitlines()
    for before, line in pairwise(lines):
        assert " = " not in line or line.startswith("#") or before.startswith("# "), line
    assert sum(line.startswith("# ") for line in lines) == len(settings_reference())


def test_values_not_named_are_kept_and_the_last_of_a_name_counts() -> None:
    base = FitSettings().with_values({"seed": 7, "dxmi.num_steps": 3})
    changed = overridden(
        base, ["features.border_margin=8", "dxmi.temperature=0.5", "features.border_margin=24"]
    )
    assert changed == base.with_values({"features.border_margin": 24, "dxmi.temperature": 0.5})
    assert overridden(base, []) == base


def test_an_integer_of_a_number_becomes_a_float_so_that_one_value_has_one_hash() -> None:
    changed = overridden(FitSettings(), ["augmentation.photometric_jitter=0"])
    assert isinstance(changed.augmentation.photometric_jitter, float)


@pytest.mark.parametrize("row", settings_reference(), ids=lambda row: row.name)
def test_the_reference_says_of_each_setting_what_it_is_for_and_a_wrong_value_quotes_it(row) -> None:
    assert row.description.endswith(".") and row.legal and row.type and row.default
    with pytest.raises(SettingsError, match="setting ") as refused:
        FitSettings().with_values({row.name: {"no": "setting"}})
    assert row.name in str(refused.value) and row.legal in str(refused.value)


def test_the_defaults_in_the_reference_are_those_of_a_fit() -> None:
    typed = [f"{row.name}={row.default}".replace("'", "") for row in settings_reference()]
    assert overridden(FitSettings(), typed) == FitSettings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("border_margin", ("'border_margin'", "GROUP.NAME=VALUE")),
        ("features.coarse_stride=[]", ("features.coarse_stride", "features.coarse_strides")),
        ("smoothing=3", ("did you mean heatmap.smoothing?",)),
        ("memory_bank.smoothing=3", ("did you mean heatmap.smoothing?",)),
        ("discriminator_widht=3", ("did you mean synthetic_defects.discriminator_width?",)),
        ("dxmi.temprature=0", ("dxmi.temprature", "dxmi.temperature")),
        ("dxmi=1", ("'dxmi'",)),
        ("warmth=1", ("'warmth'", "energyad config")),
        ("features.border_margin=wide", ("features.border_margin", "wide", "integer")),
        ("features.border_margin=8.5", ("features.border_margin", "8.5", "integer")),
        ("features.border_margin=true", ("features.border_margin", "true", "integer")),
        ("features.strides=8,16", ("features.strides", "8,16", "a list")),
        ("heatmap.smoothing=Infinity", ("heatmap.smoothing", "a number")),
        ("features.precision=int4", ("features.precision", "float32 or int8")),
        ("dxmi.start=nowhere", ("dxmi.start", "noise or noised_data")),
        ("features.strides=[]", ("features.strides", "at least one")),
        ("features.coarse_strides=[8,8]", ("features.coarse_strides", "different")),
        ("features.coarse_strides=[0]", ("features.coarse_strides", "at least 1")),
        ("energy.pretrain_lr=0", ("energy.pretrain_lr", "above 0")),
        ("energy.pretrain_batch_size=0", ("energy.pretrain_batch_size", "at least 1")),
        ("seed=9223372036854775808", ("seed", "2^63")),
        ("input.tiles=[30,30]", ("30x30", "256")),
        ("threshold.false_reject_rate=0.2", ("review rate 0.05", "0.2")),
        ("dxmi.chains_per_update=0", ("chains_per_update", "at least 1", "none")),
        ("dxmi.hidden_widths=[64,0]", ("hidden_widths", "at least 1")),
        ("dxmi.final_lr_fraction=-1", ("final_lr_fraction", "at least 0 and at most 1")),
        ("dxmi.beta_end=none", ("beta_start", "together with beta_end")),
        ("dxmi.trained_steps=[9]", ("trained_steps", "1 to 6")),
    ],
)
def test_a_setting_that_cannot_be_set_is_refused_in_one_line(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as refused:
        overridden(FitSettings(), [text])
    assert all(word in str(refused.value) for word in words), str(refused.value)
    assert "\n" not in str(refused.value)
