"""Whether the parts of today still look like the good parts that the model's threshold rests on.

A reference (scores and image statistics of held-out good parts) is compared with a window of the latest parts by two
figures. The Kolmogorov-Smirnov test says how sure a shift is; the population stability index how large. A shift counts
where both speak: a large window makes a shift that matters to nobody sure, a small one makes chance look large.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any, Final, Literal, Self

import cv2
import numpy as np
import scipy.stats
from jaxtyping import Float, UInt8

from energyad.errors import DataError
from energyad.manifest import GoodPart, Manifest
from energyad.runtimes import Runtime

WINDOW: Final = 200
"""Parts looked back at."""
FEWEST: Final = 20
"""Parts from which on a window says something."""
SURE: Final = 1e-3
"""Chance of calling a stable line shifted, over all quantities together, for one window."""
LARGE: Final = 0.25
"""Population stability index from which on a shift is usually called large; 0.1 to 0.25 moderate."""
FEWEST_GOOD: Final = 8
"""Held-out good parts from which on any shift can be sure at all."""
_MOST_BINS, _PER_BIN = 10, 5

State = Literal["too few", "stable", "shifted"]


@dataclass(frozen=True)
class Observation:
    """What is kept of one part. brightness, contrast: mean and standard deviation of grey values, 0 to 255.

    sharpness: standard deviation of the grey values' Laplacian. heatmap_mean: mean energy. All of the pixels that the
    network sees. None where only the score is known.
    """

    score: float
    brightness: float | None = None
    contrast: float | None = None
    sharpness: float | None = None
    heatmap_mean: float | None = None


QUANTITIES: Final = tuple(field.name for field in fields(Observation))


def observe(
    pixels: UInt8[np.ndarray, "size size 3"], heatmap: Float[np.ndarray, "rows columns"], score: float
) -> Observation:
    """Measure one part. pixels: RGB, at the network's size, so that cameras of any resolution compare."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return Observation(
        score=float(score),
        brightness=round(float(grey.mean()), 4),
        contrast=round(float(grey.std()), 4),
        sharpness=round(float(cv2.Laplacian(grey, cv2.CV_32F).std()), 4),
        heatmap_mean=float(np.float32(heatmap.mean(dtype=np.float64))),
    )


def observe_batch(pixels: Sequence[UInt8[np.ndarray, "size size 3"]], runtime: Runtime) -> list[Observation]:
    """Score images of the network's size, and measure each."""
    raw = runtime.run(np.stack(pixels))
    return list(map(observe, pixels, raw.heatmap, raw.score))


def good_parts(observations: Iterable[Observation]) -> tuple[GoodPart, ...]:
    """What a model keeps of the held-out good parts."""
    return tuple(GoodPart(**asdict(part)) for part in observations)


def reference_of(manifest: Manifest) -> list[Observation]:
    """The held-out good parts of a model; their scores alone where it was fitted before it kept more."""
    if manifest.good_parts:
        return [Observation(**part.model_dump()) for part in manifest.good_parts]
    return [Observation(score) for score in manifest.calibration.good_scores]


@dataclass(frozen=True)
class Shift:
    """One quantity, then and now. ks: largest distance of the two distributions, 0 to 1; p_value: of that distance.

    psi: population stability index, and psi_limit what it must exceed: LARGE, or more where so few parts make chance
    look large.
    """

    quantity: str
    then: float
    now: float
    ks: float
    p_value: float
    psi: float
    psi_limit: float
    shifted: bool


@dataclass(frozen=True)
class Drift:
    """The verdict on one window. reference, window: numbers of parts; advice: one line for people."""

    state: State
    reference: int
    window: int
    shifts: tuple[Shift, ...]
    advice: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def compare(
    reference: Sequence[Observation], window: Sequence[Observation], *, model: str = "MODEL"
) -> Drift:
    """Compare two sets of parts. model: named in the advice. Raises DataError for an empty reference."""
    if not reference:
        raise DataError("no reference of good parts: recalibrate with `energyad calibrate`")
    if len(reference) < FEWEST_GOOD:
        advice = (
            f"the model keeps {len(reference)} good parts: drift needs {FEWEST_GOOD}; calibrate it on more"
        )
        return Drift("too few", len(reference), len(window), (), advice)
    if len(window) < FEWEST:
        advice = f"{len(window)} parts are too few to speak of drift; {FEWEST} are needed"
        return Drift("too few", len(reference), len(window), (), advice)
    then, now = _columns(reference), _columns(window)
    shared = [name for name in QUANTITIES if name in then and name in now]
    shifts = tuple(_shift(name, then[name], now[name], sure=SURE / len(shared)) for name in shared)
    shifted = [shift for shift in shifts if shift.shifted]
    state: State = "shifted" if shifted else "stable"
    return Drift(state, len(reference), len(window), shifts, _advice(shifted, model))


def _columns(parts: Sequence[Observation]) -> dict[str, Float[np.ndarray, " n"]]:
    """Each quantity that is known of every part."""
    table = dict(zip(QUANTITIES, zip(*map(astuple, parts), strict=True), strict=True))
    return {name: np.asarray(column, float) for name, column in table.items() if None not in column}


def _shift(name: str, then: Float[np.ndarray, " n"], now: Float[np.ndarray, " m"], *, sure: float) -> Shift:
    test = scipy.stats.ks_2samp(then, now)
    psi, limit = stability_index(then, now), stability_limit(len(then), len(now), sure=sure)
    return Shift(
        quantity=name,
        then=float(np.median(then)),
        now=float(np.median(now)),
        ks=round(float(test.statistic), 4),
        p_value=float(test.pvalue),
        psi=round(psi, 4),
        psi_limit=round(limit, 4),
        shifted=bool(test.pvalue < sure and psi > limit),
    )


def _bins(reference: int) -> int:
    return min(_MOST_BINS, max(2, reference // _PER_BIN))


def stability_index(then: Float[np.ndarray, " n"], now: Float[np.ndarray, " m"]) -> float:
    """Population stability index Σ (q − p) ln(q / p) over bins of equal counts of the reference; 0 where p = q.

    Half a part is added to every bin, so that an empty one does not make it infinite.
    """
    bins = _bins(len(then))
    inner = np.quantile(then, np.linspace(0, 1, bins + 1)[1:-1])
    p, q = (
        (np.bincount(np.searchsorted(inner, x), minlength=bins) + 0.5) / (len(x) + bins / 2)
        for x in (then, now)
    )
    return float(((q - p) * np.log(q / p)).sum())


def stability_limit(reference: int, window: int, *, sure: float) -> float:
    """What the index must exceed: LARGE, or the value that chance exceeds with probability `sure`.

    Of two samples of one distribution it is (1/n + 1/m) χ² with bins − 1 degrees of freedom (Yurdakul, Statistical
    Properties of Population Stability Index, 2018).
    """
    noise = scipy.stats.chi2.ppf(1 - sure, _bins(reference) - 1)
    return max(LARGE, float(noise) * (1 / reference + 1 / window))


_MEANING: Final = {
    "score": "scores",
    "brightness": "brightness",
    "contrast": "contrast",
    "sharpness": "sharpness",
    "heatmap_mean": "mean energies",
}


def _advice(shifted: Sequence[Shift], model: str) -> str:
    if not shifted:
        return "no shift: the threshold holds"
    changes = ", ".join(f"{_MEANING[s.quantity]} ({s.then:.4g} then, {s.now:.4g} now)" for s in shifted)
    if all(shift.quantity != "score" for shift in shifted):
        return f"shifted: {changes}; scores have not, so far: look at light, lens and camera"
    remedy = f"recalibrate with: energyad calibrate --model {model} GOOD/"
    return (
        f"scores have shifted, so the threshold no longer holds: {changes}; if these parts are good, {remedy}"
    )


class DriftMonitor:
    """The latest `window` parts against the reference. Not safe to call from several threads."""

    def __init__(self, reference: Sequence[Observation], *, model: str, window: int = WINDOW) -> None:
        self._reference = tuple(reference)
        self._model = model
        self._latest: deque[Observation] = deque(maxlen=window)

    @classmethod
    def resumed(
        cls,
        reference: Sequence[Observation],
        earlier: Iterable[Observation],
        *,
        model: str,
        window: int = WINDOW,
    ) -> Self:
        """Go on after a restart, from the parts seen before it, oldest first."""
        monitor = cls(reference, model=model, window=window)
        monitor._latest.extend(earlier)
        return monitor

    def add(self, part: Observation) -> None:
        """Another part was scored."""
        self._latest.append(part)

    def check(self) -> Drift:
        """Compare now: some milliseconds. Raises DataError for an empty reference."""
        return compare(self._reference, self._latest, model=self._model)
