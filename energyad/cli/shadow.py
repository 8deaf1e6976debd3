"""What `watch` and `serve` share of a candidate in the shadow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from energyad.cli import console

if TYPE_CHECKING:
    from energyad.detector import AnomalyDetector
    from energyad.line.shadow import Shadow


def open_shadow(folder: Path, name: str, load: Callable[[Path], AnomalyDetector]) -> Shadow:
    """Open what scores beside a model, and say so.

    Args:
        folder: Of the model in charge.
        name: See `energyad.feedback.versions.shadow_folder`.
        load: Loads a model.
    """
    from energyad.feedback.versions import shadow_folder, version
    from energyad.line.shadow import Shadow

    path = shadow_folder(folder, name)
    shadow = Shadow(path, load, warn=console.warn)
    console.say(f"shadow     version {version(path)} scores beside {folder.name}, and nothing acts on it")
    return shadow
