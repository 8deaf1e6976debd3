"""Whether the parts of today still look like the good parts that the model's threshold rests on.

A reference (scores and image statistics of held-out good parts) is compared with a window of the latest parts by two
figures. The Kolmogorov-Smirnov test says how sure a shift is; the population stability index how large. A shift counts
where both speak: a large window makes a shift that matters to nobody sure, a small one makes chance look large.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, Self, TypeAlias

import numpy as np
from jaxtyping import Float

from energyad.errors import DataError
from energyad.model.statistics import QUANTITIES, PartStatistics
from energyad.scoring.distributions import chi_squared_quantile, kolmogorov_smirnov

WINDOW: Final = 200
"""Parts looked back at."""
FEWEST: Final = 20
"""Parts from which on a window says something."""
SURE: Final = 1e-3
"""Chance of calling a stable line shifted, over all quantities together, for one window."""
LARGE: Final = 0.25
"""Population stability index from which on a shift is usually called large; 0.1 to 0.25 moderate."""
CHECK_EVERY: Final = 10
"""Parts between two checks of a line that runs."""
MIN_GOOD: Final = 8
"""Held-out good parts from which on any shift can be sure at all."""
_MOST_BINS, _PER_BIN = 10, 5

State = Literal["too few", "stable", "shifted"]
Group: TypeAlias = tuple[str | None, list[PartStatistics], list[PartStatistics]]
"""A category, its parts in the reference, its parts in the window."""


@dataclass(frozen=True)
class Shift:
    """One quantity, then and now. ks: largest distance of the two distributions, 0 to 1; p_value: of that distance.

    psi: population stability index, and psi_limit what it must exceed: LARGE, or more where so few parts make chance
    look large. category: of the parts that were compared; None of a model of one.
    """

    quantity: str
    then: float
    now: float
    ks: float
    p_value: float
    psi: float
    psi_limit: float
    shifted: bool
    category: str | None = None

    @property
    def label(self) -> str:
        """The quantity, and the category where there are several."""
        return self.quantity if self.category is None else f"{self.quantity} of {self.category}"


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
    reference: Sequence[PartStatistics], window: Sequence[PartStatistics], *, model: str = "MODEL"
) -> Drift:
    """Compare two sets of parts, of several categories each with its own: a line may see more of one today.

    model: named in the advice. Raises DataError for an empty reference.
    """
    if not reference:
        raise DataError("no reference of good parts: recalibrate with `energyad calibrate`")
    groups = _by_category(reference, window)
    (_, then, now), *_ = groups
    if len(then) < MIN_GOOD:
        advice = f"the model keeps {len(then)} good parts: drift needs {MIN_GOOD}; calibrate it on more"
        return Drift("too few", len(then), len(window), (), advice)
    if len(now) < FEWEST:
        advice = f"{len(now)} parts are too few to speak of drift; {FEWEST} are needed"
        return Drift("too few", len(then), len(window), (), advice)
    large_enough = [group for group in groups if len(group[1]) >= MIN_GOOD and len(group[2]) >= FEWEST]
    columns = [(category, _columns(then), _columns(now)) for category, then, now in large_enough]
    pairs = [
        (category, name, then[name], now[name])
        for category, then, now in columns
        for name in QUANTITIES
        if name in then and name in now
    ]
    shifts = tuple(
        _shift(name, then, now, sure=SURE / len(pairs), category=category)
        for category, name, then, now in pairs
    )
    shifted = [shift for shift in shifts if shift.shifted]
    state: State = "shifted" if shifted else "stable"
    compared = sum(len(then) for _, then, _ in large_enough)
    latest = sum(len(now) for _, _, now in large_enough)
    return Drift(state, compared, latest, shifts, _advice(shifted, model))


def _by_category(reference: Sequence[PartStatistics], window: Sequence[PartStatistics]) -> list[Group]:
    """The parts of each category, the one with the most to compare first; all as one where they name none."""
    if {part.category for part in reference} == {None}:
        return [(None, list(reference), list(window))]
    names = dict.fromkeys(part.category for part in (*window, *reference))
    groups = [(name, _of(name, reference), _of(name, window)) for name in names]
    return sorted(groups, key=lambda group: (len(group[1]) >= MIN_GOOD, len(group[2])), reverse=True)


def _of(category: str | None, parts: Sequence[PartStatistics]) -> list[PartStatistics]:
    return [part for part in parts if part.category == category]


def _columns(parts: Sequence[PartStatistics]) -> dict[str, Float[np.ndarray, " n"]]:
    """Each quantity that is known of every part."""
    table = {name: [getattr(part, name) for part in parts] for name in QUANTITIES}
    return {name: np.asarray(column, float) for name, column in table.items() if None not in column}


def _shift(
    name: str,
    then: Float[np.ndarray, " n"],
    now: Float[np.ndarray, " m"],
    *,
    sure: float,
    category: str | None,
) -> Shift:
    distance, p_value = kolmogorov_smirnov(then, now)
    psi, limit = stability_index(then, now), stability_limit(len(then), len(now), sure=sure)
    return Shift(
        quantity=name,
        then=float(np.median(then)),
        now=float(np.median(now)),
        ks=round(distance, 4),
        p_value=p_value,
        psi=round(psi, 4),
        psi_limit=round(limit, 4),
        shifted=bool(p_value < sure and psi > limit),
        category=category,
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
    noise = chi_squared_quantile(sure, _bins(reference) - 1)
    return max(LARGE, noise * (1 / reference + 1 / window))


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
    changes = ", ".join(
        f"{_MEANING[s.quantity]}{'' if s.category is None else f' of {s.category}'}"
        f" ({s.then:.4g} then, {s.now:.4g} now)"
        for s in shifted
    )
    if all(shift.quantity != "score" for shift in shifted):
        return f"shifted: {changes}; scores have not, so far: look at light, lens and camera"
    remedy = f"recalibrate with: energyad calibrate --model {model} GOOD/"
    return (
        f"scores have shifted, so the threshold no longer holds: {changes}; if these parts are good, {remedy}"
    )


class DriftMonitor:
    """The latest `window` parts against the reference. Not safe to call from several threads."""

    def __init__(self, reference: Sequence[PartStatistics], *, model: str, window: int = WINDOW) -> None:
        self._reference = tuple(reference)
        self._model = model
        self._latest: deque[PartStatistics] = deque(maxlen=window)

    @classmethod
    def resumed(
        cls,
        reference: Sequence[PartStatistics],
        earlier: Iterable[PartStatistics],
        *,
        model: str,
        window: int = WINDOW,
    ) -> Self:
        """Go on after a restart, from the parts seen before it, oldest first."""
        monitor = cls(reference, model=model, window=window)
        monitor._latest.extend(earlier)
        return monitor

    def add(self, part: PartStatistics) -> None:
        """Another part was scored."""
        self._latest.append(part)

    def check(self) -> Drift:
        """Compare now: some milliseconds. Raises DataError for an empty reference."""
        return compare(self._reference, self._latest, model=self._model)
