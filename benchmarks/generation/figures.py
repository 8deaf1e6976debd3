"""Sheets of samples, quality against steps, and the training's curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.generation.train import PROBLEMS, RUNS

Row = dict[str, Any]
COLUMNS, LINES = 20, 3


def draw_figures(rows: Sequence[Row], pictures: Path, folder: Path) -> None:
    """Write all figures that there are rows and samples for: of digits and, with a prefix, of MNIST."""
    for name, problem in PROBLEMS.items():
        prefix = "" if name == "digits" else f"{name}_"
        fine_tunings = [row for row in rows if row.get("of", "digits") == name and row["run"] in RUNS]
        if fine_tunings:
            draw_curves(fine_tunings, folder / f"{prefix}curves.png")
        files = [pictures / f"{run}.safetensors" for run, of in RUNS.items() if of.of == name]
        if all(file.exists() for file in files if file.stem in {row["run"] for row in fine_tunings}):
            draw_sheet(problem.load().train, files, folder / f"{prefix}samples.png")
    any_steps = [row for row in rows if row["run"] == "any_steps"]
    if any_steps:
        draw_any_steps(any_steps, [row for row in rows if row["run"] in RUNS], folder / "any_steps.png")


def draw_sheet(real: Float[Tensor, "n *event"], files: Sequence[Path], path: Path) -> None:
    """Samples of the first seed, a block a sampler; the first of each, none picked. Baselines with four steps alone."""
    blocks = {"training digits": real}
    for file in sorted(file for file in files if file.exists()):
        for name, samples in load_file(file).items():
            if name == "dxmi" or file.stem.endswith("_T4"):
                blocks[f"{file.stem}: {name}"] = samples
    figure, axes = plt.subplots(len(blocks), 1, figsize=(8, 1.4 * len(blocks)), squeeze=False)
    for axis, (name, samples) in zip(axes[:, 0], blocks.items(), strict=True):
        axis.imshow(tiled(samples), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(name, fontsize=8, loc="left")
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def tiled(samples: Float[Tensor, "n *event"]) -> Float[Tensor, "h w"]:
    """The first samples as one image, a pixel of space between them."""
    flat = samples[: COLUMNS * LINES].flatten(1)
    side = math.isqrt(flat.shape[1])
    images = torch.nn.functional.pad(flat.view(-1, side, side), (0, 1, 0, 1), value=-1)
    cells = images.view(LINES, COLUMNS, side + 1, side + 1)
    return cells.permute(0, 2, 1, 3).reshape(LINES * (side + 1), COLUMNS * (side + 1))


def draw_curves(rows: Sequence[Row], path: Path) -> None:
    """Left: Frechet distance against steps. Right: along the training."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    for row in rows:
        colour = "tab:blue" if row["pretraining"] == "ddpm" else "tab:orange"
        if row["settings"]["temperature"] == 0:
            colour = "tab:green"
        else:
            left.plot(row["steps"], row["dxmi"]["averaged"]["frechet"], "o", color=colour)
            for marker, solver in zip("^sx", row["few_steps"], strict=False):
                quality = row["few_steps"][solver]
                left.plot(row["steps"], quality["frechet"], marker, color="grey", markersize=4)
        curve = row["dxmi"]["curve"]
        right.plot(
            [point["iteration"] for point in curve], [point["frechet"] for point in curve], color=colour
        )
    left.set_xticks(sorted({row["steps"] for row in rows}))
    left.set_xlabel("steps")
    left.set_ylabel("Fréchet distance")
    left.set_yscale("log")
    left.set_title("DxMI (circles) and solvers (grey)", fontsize=9)
    right.set_xlabel("iteration")
    right.set_yscale("log")
    right.set_title("blue DDPM, orange EDM, green τ = 0", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_any_steps(rows: Sequence[Row], fixed: Sequence[Row], path: Path) -> None:
    """Frechet distance of one sampler at each number of steps, before and after, beside those of fixed ones."""
    figure, axis = plt.subplots(figsize=(5, 3.4))
    for row in rows:
        for name, colour in (("before", "grey"), ("after", "tab:blue")):
            steps = [int(step) for step in row[name]]
            distances = [quality["frechet"] for quality in row[name].values()]
            axis.plot(steps, distances, color=colour, label=f"one sampler, {name}")
        axis.plot(1, row["single_step"]["frechet"], "*", color="tab:red", label="single-step generator")
    seeds = {row["seed"] for row in rows}
    for row in fixed:
        if row["seed"] in seeds and row["run"] == f"ddpm_T{row['steps']}":
            distance = row["dxmi"]["averaged"]["frechet"]
            axis.plot(row["steps"], distance, "o", color="tab:green", label="trained for these steps alone")
    axis.set_xlabel("steps")
    axis.set_ylabel("Fréchet distance")
    axis.set_yscale("log")
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)
