"""Reads config.toml into the list of jobs: one run with one seed each."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from energyad.dxmi import DxMISettings

CONFIG = Path(__file__).with_name("config.toml")
ADDED_LATER: dict[str, Any] = {
    "data_power": 1.0,
    "sigma_lr": None,
    "last_sigma": None,
    "value_gradient_weight": 0.0,
    "value_updates_per_sampler_update": 1,
    "frozen_sampler_iterations": 0,
    "sampler_gradient_clip": None,
    "steps_per_update": None,
    "sampler_average": 0.999,
    "diagonal_skip": False,
}
"""Options that rows were measured before. At these values they change nothing, and are left out of the key."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: a run of the configuration with one seed."""

    run: str
    seed: int
    target: str
    data: int
    iterations: int
    settings: DxMISettings
    single_step_iterations: int = 0
    picture: bool = False

    @property
    def key(self) -> str:
        """Changes with anything in the job, so a finished row is never taken for another job's."""
        plain = asdict(self)
        for name, neutral in ADDED_LATER.items():
            if plain["settings"][name] == neutral:
                del plain["settings"][name]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def read_jobs(*, quick: bool, path: Path = CONFIG) -> list[Job]:
    """All jobs, run by run, so that a paused benchmark has whole rows of its table."""
    config = tomllib.loads(path.read_text(encoding="utf-8"))
    top = config["quick"] if quick else {}
    seeds = top.get("seeds", config["seeds"])
    runs = config["runs"].items()
    return [_job(name, seed, config["base"], run, top) for name, run in runs for seed in seeds]


def _job(name: str, seed: int, base: dict[str, Any], run: dict[str, Any], top: dict[str, Any]) -> Job:
    layers = [base, run, top]
    settings: dict[str, Any] = {}
    for layer in layers:
        settings |= layer.get("settings", {})
    if run.get("settings", {}).get("pretrain_iterations") == 0:
        settings["pretrain_iterations"] = 0
    plain = {
        key: value for layer in layers for key, value in layer.items() if key not in ("settings", "seeds")
    }
    for key in ("iterations", "single_step_iterations"):
        if key in run and top:
            plain[key] = min(run[key], top["iterations"])
    return Job(run=name, seed=seed, settings=DxMISettings.from_dict(settings), **plain)
