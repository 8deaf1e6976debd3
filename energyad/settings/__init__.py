"""Settings of a fit: one frozen value in groups, which a person can read, write as TOML, and change one by one.

groups         what can be set, with its legal values
fit_settings   all groups in one value
reference      a row for every setting
text           GROUP.NAME=VALUE, and TOML files
"""

from energyad.settings.fit_settings import FitSettings
from energyad.settings.reference import SettingRow, settings_reference

__all__ = ["FitSettings", "SettingRow", "settings_reference"]
