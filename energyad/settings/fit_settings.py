"""All settings of a fit in one frozen value, written whole into the model's JSON."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any

from annotated_types import Ge, Lt

from energyad.declaration import SettingsGroup, setting
from energyad.errors import SettingsError
from energyad.settings.groups import (
    DEFAULT_DXMI,
    AugmentationSettings,
    EnergySettings,
    FeatureSettings,
    FitDxMISettings,
    HeatmapSettings,
    InputSettings,
    MemoryBankSettings,
    SyntheticDefectSettings,
    ThresholdSettings,
)


@dataclass(frozen=True, kw_only=True)
class FitSettings(SettingsGroup):
    """Settings of a fit, in groups. One configuration serves every category.

    `settings_reference()` lists every setting with its default, its legal values and what it is for.

    Example:
        >>> settings = FitSettings().with_values({"input.image_size": 128, "dxmi.iterations": 0})
        >>> settings.input.image_size
        128
    """

    input: InputSettings = field(default_factory=InputSettings)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    energy: EnergySettings = field(default_factory=EnergySettings)
    memory_bank: MemoryBankSettings = field(default_factory=MemoryBankSettings)
    synthetic_defects: SyntheticDefectSettings = field(default_factory=SyntheticDefectSettings)
    dxmi: FitDxMISettings = DEFAULT_DXMI
    heatmap: HeatmapSettings = field(default_factory=HeatmapSettings)
    threshold: ThresholdSettings = field(default_factory=ThresholdSettings)
    seed: Annotated[int, Ge(0), Lt(2**63)] = setting(
        0, "Seed of everything random.", legal="an integer, at least 0 and below 2^63"
    )

    def with_values(self, values: Mapping[str, Any]) -> FitSettings:
        """Copy these settings with some values replaced.

        Args:
            values: by full names, such as {"memory_bank.size": 64, "seed": 1}.

        Raises:
            SettingsError: for an unknown name or an illegal value.
        """
        grouped: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            require_known(name)
            group, _, bare = name.rpartition(".")
            grouped.setdefault(group, {})[bare] = value
        ungrouped = grouped.pop("", {})
        groups = {group: replace(getattr(self, group), **changed) for group, changed in grouped.items()}
        return replace(self, **groups, **ungrouped)

    def values(self) -> dict[str, Any]:
        """Every value by its full name, the inverse of `with_values`."""
        nested = asdict(self)
        return {name: _value(nested, name) for name in names()}

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitSettings:
        """Inverse of `to_dict`, also after a trip through JSON. What is absent has its default.

        Raises:
            SettingsError: for an unknown name or an illegal value.
        """
        return cls().with_values(flat(values))


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values by their full names."""
    by_full_name: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            by_full_name |= {f"{name}.{bare}": inner for bare, inner in value.items()}
        else:
            by_full_name[name] = value
    return by_full_name


def groups() -> dict[str, SettingsGroup]:
    """The groups by their names, with their default values."""
    held = {group.name: getattr(FitSettings(), group.name) for group in fields(FitSettings)}
    return {name: value for name, value in held.items() if isinstance(value, SettingsGroup)}


def names() -> list[str]:
    """The full name of every setting, in order."""
    inner = [f"{group}.{setting.name}" for group, default in groups().items() for setting in fields(default)]
    return [*inner, "seed"]


def require_known(name: str) -> None:
    """Raise SettingsError for a name that no setting has, with the names that come near."""
    known = names()
    if name not in known:
        near = near_names(name, known)
        hint = f"; did you mean {' or '.join(near)}?" if near else ": `energyad config` lists them"
        raise SettingsError(f"there is no setting '{name}'{hint}")


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """At most three full names that are like this one, which may be without its group."""
    known = list(known)
    bare = name.rpartition(".")[2]
    same_name = [full for full in known if full.rpartition(".")[2] == bare]
    if same_name:
        return same_name[:3]
    if "." in name:
        return difflib.get_close_matches(name, known, n=3, cutoff=0.75)
    close = difflib.get_close_matches(name, [full.rpartition(".")[2] for full in known], n=3, cutoff=0.75)
    return [full for full in known if full.rpartition(".")[2] in close][:3]


def _value(nested: Mapping[str, Any], name: str) -> Any:
    group, _, bare = name.rpartition(".")
    return nested[group][bare] if group else nested[bare]
