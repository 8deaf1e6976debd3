"""The pictures: what was learned, and the plots over temperature, steps and iterations."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.toy_2d.tables import Getter, Row, ddpm, energy, samples
from benchmarks.toy_2d.targets import BOX

matplotlib.use("Agg")
import matplotlib.pyplot as plt

PICTURES = ("pretrained", "tau_0", "skewed_mixture", "two_spirals")
EXTENT = (-BOX, BOX, -BOX, BOX)
FLOOR_OF_LOG_DENSITY = -15.0


def draw_figures(rows: list[Row], folder: Path) -> None:
    """All figures whose rows and pictures are there."""
    for run in PICTURES:
        source = folder / "pictures" / f"{run}.safetensors"
        if source.exists():
            draw_game(load_file(source), folder / f"{run}.png")
    draw_curves(rows, folder / "curves.png")


def draw_game(tensors: dict[str, Tensor], path: Path) -> None:
    """True density, learned energy, data and samples above; the sampler's path step by step below."""
    chains = tensors["chains"]
    figure, axes = plt.subplots(2, max(4, len(chains)), figsize=(2.2 * max(4, len(chains)), 4.8))
    for axis in axes.flat:
        axis.set(xlim=EXTENT[:2], ylim=EXTENT[2:], xticks=[], yticks=[], aspect="equal")
        axis.set_visible(False)
    density = tensors["log_density"].clamp(min=FLOOR_OF_LOG_DENSITY)
    image(axes[0, 0], density, "log density, true")
    image(axes[0, 1], -tensors["energy"], "minus energy, learned")
    scatter(axes[0, 2], tensors["data"], "data")
    scatter(axes[0, 3], chains[-1], "samples")
    for t, states in enumerate(chains):
        scatter(axes[1, t], states, f"x at step {t}")
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def image(axis: Axes, values: Tensor, title: str) -> None:
    axis.imshow(values, origin="lower", extent=EXTENT, cmap="viridis")
    axis.set_title(title, fontsize=9)
    axis.set_visible(True)


def scatter(axis: Axes, points: Tensor, title: str) -> None:
    axis.plot(points[:, 0], points[:, 1], ".", markersize=1, alpha=0.5)
    axis.set_title(title, fontsize=9)
    axis.set_visible(True)


def draw_curves(rows: list[Row], path: Path) -> None:
    """Quality over temperature, over steps, and the energy's quality over iterations."""
    figure, axes = plt.subplots(1, 4, figsize=(19, 3.8))
    over_temperature(rows, axes[0])
    over_steps(rows, axes[1])
    over_iterations(rows, axes[2], "auroc", "energy AUROC on [-4, 4]²")
    over_iterations(rows, axes[3], "sliced_wasserstein", "sliced Wasserstein, 2,000 samples")
    axes[3].set_yscale("log")
    for axis in axes:
        axis.legend(fontsize=7)
    figure.tight_layout(w_pad=2)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def over_temperature(rows: list[Row], axis: Axes) -> None:
    """Both players' quality against the temperature."""
    runs = ("tau_0", "tau_001", "tau_003", "pretrained", "tau_03")
    by_tau = {
        of_run(rows, run)[0]["settings"]["temperature"]: of_run(rows, run)
        for run in runs
        if of_run(rows, run)
    }
    places = list(range(len(by_tau)))
    axis.set_xticks(places, [f"{tau:g}" for tau in by_tau])
    draw_spread(axis, places, list(by_tau.values()), samples("sliced_wasserstein"), "samples: SW", "C0")
    axis.set(xlabel="temperature τ", ylabel="sliced Wasserstein", ylim=(0, None))
    right = axis.twinx()
    draw_spread(right, places, list(by_tau.values()), energy("auroc"), "energy: AUROC (right)", "C1")
    ceilings = [
        value for row in rows if (value := energy("true_auroc")(row)) is not None and row["run"] in runs
    ]
    if ceilings:
        right.axhline(statistics.fmean(ceilings), color="C1", linestyle=":", linewidth=1)
    right.set(ylabel="AUROC", ylim=(0.5, 0.95))
    right.legend(fontsize=7, loc="lower right")


def over_steps(rows: list[Row], axis: Axes) -> None:
    """One sampler at every number of steps, beside those made for one number."""
    fixed = [
        (row[0]["settings"]["num_steps"], row)
        for run in ("T_1", "T_2", "T_4", "pretrained", "T_10")
        if (row := of_run(rows, run))
    ]
    steps = [step for step, _ in fixed]
    groups = [group for _, group in fixed]
    draw_spread(axis, steps, groups, ddpm("sliced_wasserstein"), "DDPM of that T", "C7")
    draw_spread(axis, steps, groups, samples("sliced_wasserstein"), "DxMI of that T", "C0")
    one = of_run(rows, "any_steps")
    if one:
        for step in one[0]["settings"]["trained_steps"]:
            label = "one DxMI sampler" if step == 1 else None
            draw_spread(axis, [step], [one], samples("sliced_wasserstein", str(step)), label, "C3")
        draw_spread(
            axis, [1], [one], samples("sliced_wasserstein", "single_step"), "its single-step generator", "C2"
        )
    axis.axhline(
        statistics.fmean(row["floor"] for row in rows), color="k", linestyle=":", label="truth against truth"
    )
    axis.set(xlabel="steps", ylabel="sliced Wasserstein", yscale="log")


def over_iterations(rows: list[Row], axis: Axes, name: str, label: str) -> None:
    """A measure along the training, one line a seed."""
    for colour, run in enumerate(("pretrained", "scratch", "tau_0", "adaptive", "through_time")):
        for number, row in enumerate(of_run(rows, run)):
            curve: list[dict[str, Any]] = row["curve"]
            xs, ys = [point["iteration"] for point in curve], [point[name] for point in curve]
            axis.plot(xs, ys, color=f"C{colour}", linewidth=0.8, label=run if number == 0 else None)
    axis.set(xlabel="iterations", ylabel=label)


def of_run(rows: list[Row], run: str) -> list[Row]:
    return [row for row in rows if row["run"] == run]


def draw_spread(
    axis: Axes, places: Sequence[int], groups: list[list[Row]], getter: Getter, label: str | None, colour: str
) -> None:
    """Mean and standard deviation of each group of rows."""
    values = [[value for row in group if (value := getter(row)) is not None] for group in groups]
    kept = [(place, found) for place, found in zip(places, values, strict=True) if found]
    means = [statistics.fmean(found) for _, found in kept]
    errors = [statistics.stdev(found) if len(found) > 1 else 0.0 for _, found in kept]
    axis.errorbar(
        [place for place, _ in kept],
        means,
        errors,
        marker="o",
        markersize=3,
        capsize=2,
        color=colour,
        label=label,
    )
