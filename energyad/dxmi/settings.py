"""One frozen set of options for a whole DxMI training, small enough to be written into a model's JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from energyad.errors import SettingsError

RunningCost = Literal["path", "adaptive"]
Start = Literal["noise", "noised_data"]
SamplerUpdate = Literal["dynamic_programming", "through_time"]


@dataclass(frozen=True, kw_only=True)
class DxMISettings:
    """Options of the game between an energy and a diffusion sampler (arXiv 2407.00626).

    Attributes:
        num_steps: T, Gaussian steps of the sampler.
        temperature: tau, weight of the sampler's entropy and running cost; both count per dimension.
        energy_regularization: gamma, weight of the squared energies; bounds the energy by 1 / (2 gamma).
        data_power: of the mean of the data's energies that the energy lowers. 1 is the paper's; beyond it, for energies
            above zero, the rare data weigh more that have high ones.
        running_cost: "path" (exact variance-preserving noising) or "adaptive" (the paper's velocity cost).
        running_cost_weight: factor on the running cost beside the entropy.
        start: "noise" starts chains at N(0, I), "noised_data" at data noised by the whole schedule.
        beta_start, beta_end: noise of the step nearest the data and of the farthest, linear between.
            None takes a cosine schedule for "noise" and 0.01, 0.15 for "noised_data".
        sampler_update: "dynamic_programming" (DxDP) or "through_time" (plain back-propagation, a baseline).
        trained_steps: numbers of steps, 1 to T, that one sampler shall work with; None means T alone. An
            iteration draws one with a chance of 1 / steps, so short chains learn as fast as long ones.
        sampler_steps_per_iteration: sampler and value updates for each energy update, on one set of chains.
        chains_per_update: chains a sampler update looks at, at most `batch_size`; None takes all.
        energy_average: decay of the running average of the energy's weights.
        decay_iterations: length of the cosine decay of all learning rates; None keeps them constant.
        final_lr_fraction: what is left of the learning rates at the end of that decay.
        pretrain_iterations: denoising (DDPM) updates of the sampler before the first `run` iteration.
        hidden_widths: layers of the default networks.
        energy_bound, sigma_bounds: outside of these a training counts as diverged.
    """

    num_steps: int = 6
    temperature: float = 0.1
    energy_regularization: float = 1.0
    data_power: float = 1.0
    running_cost: RunningCost = "path"
    running_cost_weight: float = 1.0
    start: Start = "noise"
    beta_start: float | None = None
    beta_end: float | None = None
    sampler_update: SamplerUpdate = "dynamic_programming"
    trained_steps: tuple[int, ...] | None = None
    batch_size: int = 256
    energy_lr: float = 2e-4
    sampler_lr: float = 1e-3
    value_lr: float = 2e-3
    energy_beta1: float = 0.0
    sampler_steps_per_iteration: int = 2
    chains_per_update: int | None = None
    energy_average: float = 0.999
    decay_iterations: int | None = None
    final_lr_fraction: float = 0.1
    pretrain_iterations: int = 0
    pretrain_lr: float = 1e-3
    hidden_widths: tuple[int, ...] = (128, 128, 128)
    energy_bound: float = 1e4
    sigma_bounds: tuple[float, float] = (1e-5, 1e2)

    def __post_init__(self) -> None:
        """Refuse illegal values, naming each."""
        for name in ("num_steps", "batch_size", "sampler_steps_per_iteration"):
            self._require(getattr(self, name) >= 1, name, "must be at least 1")
        for name in ("chains_per_update", "decay_iterations"):
            value = getattr(self, name)
            self._require(value is None or value >= 1, name, "must be at least 1, or None")
        self._require(
            all(width >= 1 for width in self.hidden_widths), "hidden_widths", "must each be at least 1"
        )
        self._require(0 <= self.final_lr_fraction <= 1, "final_lr_fraction", "must be in [0, 1]")
        for name in ("temperature", "energy_regularization", "running_cost_weight", "pretrain_iterations"):
            self._require(getattr(self, name) >= 0, name, "must not be negative")
        for name in ("energy_lr", "sampler_lr", "value_lr", "pretrain_lr"):
            self._require(getattr(self, name) > 0, name, "must be positive")
        for name, legal in (
            ("running_cost", RunningCost),
            ("start", Start),
            ("sampler_update", SamplerUpdate),
        ):
            self._require(getattr(self, name) in get_args(legal), name, f"must be one of {get_args(legal)}")
        steps = (self.num_steps,) if self.trained_steps is None else self.trained_steps
        legal_steps = len(steps) > 0 and all(1 <= step <= self.num_steps for step in steps)
        self._require(legal_steps, "trained_steps", f"must name numbers of steps from 1 to {self.num_steps}")
        self._require(self.data_power >= 1, "data_power", "must be at least 1")
        self._require(0 <= self.energy_average < 1, "energy_average", "must be in [0, 1)")
        self._require(0 <= self.energy_beta1 < 1, "energy_beta1", "must be in [0, 1)")
        both = (self.beta_start is None) == (self.beta_end is None)
        self._require(both, "beta_start", "must be given together with beta_end")
        if self.beta_start is not None and self.beta_end is not None:
            legal_betas = 0 < self.beta_start <= self.beta_end < 1
            self._require(legal_betas, "beta_end", "needs 0 < beta_start <= beta_end < 1")

    def _require(self, legal: bool, name: str, rule: str) -> None:
        if not legal:
            raise SettingsError(f"DxMISettings.{name} = {getattr(self, name)!r}: {rule}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DxMISettings:
        """Inverse of `to_dict`, also after a trip through JSON; unknown names raise SettingsError."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise SettingsError(f"DxMISettings has no option {sorted(unknown)}: upgrade energyad")
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)
