"""Everything that training changes, as tensors: a snapshot in memory, safetensors and JSON on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from energyad.dxmi.settings import DxMISettings
from energyad.errors import ModelError

FORMAT = 1
TENSORS, DESCRIPTION = "training.safetensors", "training.json"
REMEDY = "give another checkpoint or start the training anew"


@dataclass(frozen=True)
class TrainingState:
    """A moment of a training.

    Attributes:
        counters: whole numbers that the loop keeps.
        tensors: weights, buffers and the optimisers' state, named by player; and the generator's state.
    """

    counters: dict[str, int]
    tensors: dict[str, Tensor]

    @classmethod
    def of(
        cls,
        counters: Mapping[str, int],
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
    ) -> TrainingState:
        """Copy the state of all players."""
        tensors = {"generator": generator.get_state()}
        for name, module in modules.items():
            for key, value in module.state_dict().items():
                tensors[f"module.{name}.{key}"] = value.detach().clone()
        for name, optimizer in optimizers.items():
            for index, entries in optimizer.state_dict()["state"].items():
                for key, value in entries.items():
                    tensors[f"optimizer.{name}.{index}.{key}"] = value.detach().clone()
        return cls({name: int(value) for name, value in counters.items()}, tensors)

    def restore(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        generator: torch.Generator,
    ) -> None:
        """Write the state back, learning rates excepted. Raises ModelError for other networks."""
        for name, module in modules.items():
            try:
                module.load_state_dict(self._below(f"module.{name}."))
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise ModelError(f"checkpoint does not fit the given {name} ({reason}); {REMEDY}") from error
        for name, optimizer in optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in self._below(f"optimizer.{name}.").items():
                index, entry = key.split(".", 1)
                state.setdefault(int(index), {})[entry] = value.clone()
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        generator.set_state(self.tensors["generator"].cpu())

    def _below(self, prefix: str) -> dict[str, Tensor]:
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}


def write_checkpoint(folder: str | Path, state: TrainingState, settings: DxMISettings) -> None:
    """Write a state; files are replaced whole, and a pair of different moments is seen on reading."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    counters = {name: str(value) for name, value in state.counters.items()}
    partial = folder / (TENSORS + ".partial")
    save_file({name: value.contiguous() for name, value in state.tensors.items()}, partial, metadata=counters)
    partial.replace(folder / TENSORS)
    description = {"format": FORMAT, "counters": counters, "settings": settings.to_dict()}
    partial = folder / (DESCRIPTION + ".partial")
    partial.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / DESCRIPTION)


def read_checkpoint(folder: str | Path) -> tuple[TrainingState, DxMISettings]:
    """Inverse of `write_checkpoint`. Raises ModelError for a missing, torn or foreign checkpoint."""
    folder = Path(folder)
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        with safe_open(folder / TENSORS, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            counters = file.metadata()
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{folder}: cannot read the training checkpoint ({error}); {REMEDY}") from error
    if description.get("format") != FORMAT:
        found = description.get("format")
        raise ModelError(f"{folder}: checkpoint format {found}, this version reads {FORMAT}; {REMEDY}")
    if counters != description["counters"]:
        raise ModelError(f"{folder}: {TENSORS} and {DESCRIPTION} are of different moments; {REMEDY}")
    state = TrainingState({name: int(value) for name, value in counters.items()}, tensors)
    return state, DxMISettings.from_dict(description["settings"])
