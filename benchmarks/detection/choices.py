"""`python -m benchmarks.detection.choices`: what the defaults are chosen by.

Each change of the default settings is fitted and measured on synthetic defects, beside the default: no test image is
read. A change is `group.setting=value` as `energyad.settings.text` reads it, several in one by spaces. Rules on the
same features (`knn`, `mahalanobis`, ...) stand beside them by their names.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch

from benchmarks import provenance
from benchmarks.command import command
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.method import side_of
from benchmarks.detection.rows import settings_hash
from benchmarks.detection.same_features import RULES, FeatureRule, settings_for
from benchmarks.detection.synthetic_validation import (
    ScoreFunction,
    SyntheticValidation,
    hold_out,
    measure_detection,
)
from energyad.data.datasets import Category
from energyad.errors import SettingsError
from energyad.fitting.category import single_thread
from energyad.fitting.energies import fit_multiscale_energy
from energyad.fitting.memory_banks import extend_memory_banks
from energyad.scoring.scorer import EnergyHead
from energyad.settings import FitSettings
from energyad.settings.text import overridden

RESULTS = Path(__file__).with_name("choices.jsonl")
DEFAULT = "default"

EXTRACTED = ("input", "features", "augmentation", "synthetic_defects", "seed")
"""Groups of settings that a validation's features depend on. All others share them."""

CHANGES = (
    DEFAULT,
    "knn",
    # DxMI
    "dxmi.iterations=0",
    "dxmi.temperature=0",
    "energy.pretrain_steps=300 dxmi.iterations=0",
    "energy.pretrain_steps=300 dxmi.iterations=1500 dxmi.decay_iterations=1500",
    "energy.pretrain_steps=300 dxmi.iterations=1500 dxmi.decay_iterations=1500 dxmi.temperature=0",
    # The autoencoder
    "energy.pretrain_steps=1000",
    "energy.pretrain_power=1",
    "energy.bottleneck=64",
    "energy.width=128",
    "energy.ensemble_size=3",
    # Distances
    "memory_bank.size=0",
    "memory_bank.size=512",
    "memory_bank.size=2048",
    "memory_bank.directions=176",
    "memory_bank.rerank_banks=0",
    "memory_bank.rerank_banks=4 memory_bank.rerank_bank_size=2048",
    "memory_bank.rerank_bank_size=2048",
    "memory_bank.rerank_bank_size=8192",
    "memory_bank.rerank_fraction=0.0625",
    "memory_bank.rerank_fraction=0.25",
    # The discriminator
    "synthetic_defects.per_image=0",
    "synthetic_defects.discriminator_strength=0.05",
    "synthetic_defects.discriminator_strength=0.2",
    # What it is shown, and the heatmap
    "input.image_size=384",
    "augmentation.photometric_jitter=0",
    "augmentation.photometric_jitter=0.3",
    "features.strides=[8,16]",
    "features.coarse_strides=[]",
    "energy.coarse_weight=0.2",
    "energy.coarse_weight=0.5",
    "features.border_margin=8",
    "heatmap.smoothing=0",
    "heatmap.smoothing=8",
    "heatmap.contrast=1",
    "heatmap.contrast=1.1",
    "heatmap.contrast=1.5",
)


def settings_of(change: str, base: FitSettings) -> FitSettings:
    """What a change makes of these settings; rules have no settings of their own. Raises SettingsError."""
    if change in RULES:
        return settings_for(change, base)
    return overridden(base, [] if change == DEFAULT else change.split())


def is_known(change: str) -> bool:
    """Whether there is such a rule, or such settings still."""
    try:
        settings_of(change, FitSettings())
    except SettingsError:
        return False
    return True


def fit(change: str, validation: SyntheticValidation, settings: FitSettings) -> ScoreFunction:
    """A score function, fitted on a validation's good parts: a rule of that name, or energyad with these settings."""
    generator = torch.Generator().manual_seed(settings.seed)
    if change in RULES:
        rule = FeatureRule(change, settings)
        bank_patches = [
            p.flatten(0, 1) for p in (validation.patches[0].fitted, validation.patches[0].held_out)
        ]
        return rule.head(
            RULES[change](torch.cat(bank_patches), generator, settings)[0], validation.context.grid
        )
    context = replace(validation.context, settings=settings)
    with single_thread():
        patches, held_out = validation.patches, [of_scale.held_out for of_scale in validation.patches]
        energy, _ = fit_multiscale_energy(patches, context, generator)
        energy = extend_memory_banks(energy, held_out, num_fitted=len(patches[0].fitted), seed=settings.seed)
    return EnergyHead(
        energy, grid=context.grid, smoothing=settings.heatmap.smoothing, contrast=settings.heatmap.contrast
    )


def measure(
    category: Category, wanted: Sequence[tuple[str, FitSettings]], *, threads: int
) -> Iterator[tuple[str, FitSettings, dict[str, float]]]:
    """Figures of each change, with the settings it came to. Features are extracted once for all that share one."""

    def extracted(each: tuple[str, FitSettings]) -> str:
        return str([getattr(each[1], name) for name in EXTRACTED])

    for _, sharing in groupby(sorted(wanted, key=extracted), key=extracted):
        validation = None
        for change, settings in sharing:
            validation = validation or hold_out(category, settings, threads=threads)
            began = time.process_time()
            score = fit(change, validation, settings)
            cost = {"fit_cpu_seconds": round(time.process_time() - began, 1)}
            yield change, settings, measure_detection(validation.images, score) | cost


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.detection.choices", description=__doc__)
    p.add_argument("--data-root", action="append", type=Path)
    p.add_argument("--categories", nargs="+", required=True, metavar="NAME")
    p.add_argument("--changes", nargs="+", default=list(CHANGES), metavar="CHANGE")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--image-size", type=int, default=side_of(FitSettings()))
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--results", type=Path, default=RESULTS)
    return p


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every change that has no row of these settings yet."""
    options = parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name in options.categories:
        category = open_anywhere(name, options.data_root)
        for seed in options.seeds:
            run(category, seed, options)


def run(category: Category, seed: int, options: argparse.Namespace) -> None:
    """FeatureStore of one category and seed. Their image_size is the default's, which changes are compared with."""
    base = FitSettings().with_values({"input.image_size": options.image_size, "seed": seed})
    found = provenance.read_rows(options.results)
    done = {(row["change"], row["category"], row["seed"], row["settings_hash"]) for row in found}
    wanted = [(each, settings_of(each, base)) for each in options.changes]
    missing = [
        (each, settings)
        for each, settings in wanted
        if (each, category.name, seed, hashed(settings)) not in done
    ]
    for change, settings, figures in measure(category, missing, threads=options.threads):
        what = {
            "change": change,
            "category": category.name,
            "seed": seed,
            "image_size": options.image_size,
            "settings_hash": hashed(settings),
        }
        stamp = vars(provenance.stamp(threads=options.threads))
        provenance.append_row(options.results, what | figures | stamp)
        auroc = f"image {figures['image_auroc']:.4f}, pixel {figures['pixel_auroc']:.4f}"
        print(f"{category.name}, seed {seed}, {change}: {auroc}", flush=True)


def hashed(settings: FitSettings) -> str:
    """Digits that change with any setting but the seed."""
    return settings_hash(replace(settings, seed=0).to_dict())


if __name__ == "__main__":
    sys.exit(main())
