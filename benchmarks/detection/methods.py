"""Every method by its name."""

from __future__ import annotations

import re

from benchmarks.detection.method import Method
from benchmarks.detection.ours import CHANGES, energyad_method
from benchmarks.detection.peers import Peer
from benchmarks.detection.same_features import RULES, is_rule, rule_named
from energyad.errors import SettingsError

PATCHCORE = re.compile(r"patchcore-(0\.\d+|1)")


def open_method(name: str, *, image_size: int) -> Method:
    """The method of that name; `patchcore-<ratio>` takes any coreset ratio. Raises SettingsError."""
    if name in CHANGES:
        return energyad_method(name, image_size=image_size)
    if is_rule(name):
        rule = rule_named(name, image_size=image_size)
        rule.backbone()  # traced here, outside of what is timed
        return rule
    if name in {"padim", "mh-patchcore"}:
        return Peer(name, image_size)
    if match := PATCHCORE.fullmatch(name):
        return Peer("patchcore", image_size, coreset_ratio=float(match[1]))
    known = ", ".join([*CHANGES, *RULES, "padim", "mh-patchcore", "patchcore-<ratio>"])
    raise SettingsError(f"method '{name}': there is none of that name; there are {known}")
