"""One frozen set of options for a whole DxMI training, small enough to be written into a model's JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from annotated_types import Ge, Le, Lt

from energyad.declaration import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SettingsGroup,
    setting,
)
from energyad.errors import SettingsError

RunningCost: TypeAlias = Literal["path", "adaptive"]
Start: TypeAlias = Literal["noise", "noised_data"]
SamplerUpdate: TypeAlias = Literal["dynamic_programming", "through_time"]
BelowOne: TypeAlias = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class DxMISettings(SettingsGroup):
    """Options of the game between an energy and a diffusion sampler (arXiv 2407.00626)."""

    PREFIX: ClassVar[str] = "DxMISettings."

    num_steps: PositiveInt = setting(6, "T, Gaussian steps of the sampler.")
    temperature: NonNegativeFloat = setting(
        0.1, "tau, weight of the sampler's entropy and running cost; both count per dimension."
    )
    energy_regularization: NonNegativeFloat = setting(
        1.0, "gamma, weight of the squared energies; bounds the energy by 1 / (2 gamma)."
    )
    data_power: Annotated[float, Ge(1)] = setting(
        1.0,
        "Power of the mean of the data's energies that the energy lowers; 1 is the paper's, beyond it rare data "
        "weigh more.",
    )
    running_cost: RunningCost = setting(
        "path", "path (exact variance-preserving noising) or adaptive (the paper's velocity cost)."
    )
    running_cost_weight: NonNegativeFloat = setting(1.0, "Factor on the running cost beside the entropy.")
    start: Start = setting(
        "noise", "noise starts chains at N(0, I), noised_data at data noised by the whole schedule."
    )
    beta_start: float | None = setting(
        None,
        "Noise of the step nearest the data; none takes a cosine schedule for noise, and 0.01 to 0.15 for noised_data.",
        legal="a number above 0 and at most beta_end, or none together with it",
    )
    beta_end: float | None = setting(
        None,
        "Noise of the step farthest from the data, linear between.",
        legal="a number of at least beta_start and below 1, or none together with it",
    )
    sampler_update: SamplerUpdate = setting(
        "dynamic_programming",
        "dynamic_programming (DxDP) or through_time (plain back-propagation, a baseline).",
    )
    trained_steps: tuple[PositiveInt, ...] | None = setting(
        None,
        "Numbers of steps that one sampler shall work with, one drawn each iteration; none for num_steps alone.",
        legal="a list of at least one integer from 1 to num_steps, or none",
    )
    batch_size: PositiveInt = setting(256, "Data points, and chains, of an iteration.")
    energy_lr: PositiveFloat = setting(2e-4, "Learning rate of the energy.")
    sampler_lr: PositiveFloat = setting(1e-3, "Learning rate of the sampler.")
    sigma_lr: PositiveFloat | None = setting(
        None, "Learning rate of the sampler's standard deviations; none takes the sampler's."
    )
    last_sigma: PositiveFloat | None = setting(
        None, "Fixed standard deviation of the step that ends at the data; none learns it."
    )
    value_lr: PositiveFloat = setting(2e-3, "Learning rate of the value function.")
    value_gradient_weight: NonNegativeFloat = setting(
        5.0,
        "Weight of the error in the value's gradient beside that in the value. At 0 the sampler follows a gradient "
        "that nothing has taught, and fails in many dimensions.",
    )
    value_updates_per_sampler_update: PositiveInt = setting(
        1, "Value updates for each sampler update, each from a draw of its own."
    )
    frozen_sampler_iterations: NonNegativeInt = setting(
        0, "First iterations, in which energy and value alone are trained."
    )
    sampler_gradient_clip: PositiveFloat | None = setting(
        None, "Largest norm of the sampler's gradient; none clips nothing."
    )
    energy_beta1: BelowOne = setting(0.0, "Momentum of the energy's Adam.")
    sampler_steps_per_iteration: PositiveInt = setting(
        2, "Sampler and value updates for each energy update, on one set of chains."
    )
    chains_per_update: PositiveInt | None = setting(
        None, "Chains that a sampler update uses, at most batch_size; none takes all."
    )
    steps_per_update: PositiveInt | None = setting(
        None,
        "Steps of the chains, drawn anew, that a sampler update uses; none takes all. Its memory and time do not grow "
        "with num_steps then.",
    )
    energy_average: BelowOne = setting(0.999, "Decay of the running average of the energy's weights.")
    sampler_average: BelowOne = setting(0.999, "Decay of the running average of the sampler's weights.")
    decay_iterations: PositiveInt | None = setting(
        None, "Length of the cosine decay of all learning rates; none keeps them constant."
    )
    final_lr_fraction: Annotated[float, Ge(0), Le(1)] = setting(
        0.1, "Fraction of the learning rates that is left at the end of that decay."
    )
    pretrain_iterations: NonNegativeInt = setting(
        0, "Denoising (DDPM) updates of the sampler before the first iteration."
    )
    pretrain_lr: PositiveFloat = setting(1e-3, "Their learning rate.")
    hidden_widths: tuple[PositiveInt, ...] = setting(
        (128, 128, 128), "Hidden layers of the default networks."
    )
    diagonal_skip: bool = setting(
        True,
        "Whether default networks hold a linear part (the value a quadratic one), with a gain for each axis and time.",
    )
    energy_bound: float = setting(1e4, "Energy beyond which a training counts as diverged.")
    sigma_bounds: tuple[float, float] = setting(
        (1e-5, 1e2), "Standard deviations of the sampler outside of which a training counts as diverged."
    )

    def __post_init__(self) -> None:
        """Check every value, and those that bound each other. Raises SettingsError."""
        super().__post_init__()
        steps = (self.num_steps,) if self.trained_steps is None else self.trained_steps
        legal_steps = len(steps) > 0 and all(1 <= step <= self.num_steps for step in steps)
        self.require(legal_steps, "trained_steps", f"must name numbers of steps from 1 to {self.num_steps}")
        both = (self.beta_start is None) == (self.beta_end is None)
        self.require(both, "beta_start", "must be given together with beta_end")
        if self.beta_start is not None and self.beta_end is not None:
            legal_betas = 0 < self.beta_start <= self.beta_end < 1
            self.require(legal_betas, "beta_end", "needs 0 < beta_start <= beta_end < 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DxMISettings:
        """Inverse of `to_dict`, also after a trip through JSON; unknown names raise SettingsError."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise SettingsError(f"DxMISettings has no option {sorted(unknown)}: upgrade energyad")
        return cls(**values)
