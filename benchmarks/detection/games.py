"""`python -m benchmarks.detection.games`: what DxMI gives to detection, beside its start and beside its controls.

One fit of each category and seed without DxMI; then several games start from its autoencoders. Whatever does not depend
on the game (features, memory banks, discriminator) is the same for all of them. A game's last energy is measured; a fit
would keep the start where synthetic defects are told from held-out parts better by it.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks import provenance
from benchmarks.command import command
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.heads import Finest, features_of_test, figures_of
from benchmarks.detection.rows import settings_hash
from energyad.data.datasets import Category
from energyad.dxmi import DxMITrainer
from energyad.energy.discriminator import DiscriminatorEnergy
from energyad.energy.latent_energy import LatentEnergy
from energyad.energy.memory_bank import MemoryBankEnergy
from energyad.energy.patch_energy import CategoryEnergy, PatchEnergy, combine_scales
from energyad.energy.reranking import match_medians
from energyad.fitting import training
from energyad.fitting.backbone import open_backbone
from energyad.fitting.category import PreparedCategory, prepare_category, single_thread
from energyad.fitting.context import FitContext
from energyad.fitting.energies import Latents, fit_multiscale_energy, for_scale, to_latents
from energyad.fitting.fit import leave_out_copies, shape_input
from energyad.fitting.training import train_dxmi
from energyad.progress import NullProgress
from energyad.scoring.scorer import EnergyHead
from energyad.settings import FitSettings
from energyad.settings.text import overridden

RESULTS: Final = Path(__file__).with_name("games.jsonl")
START: Final = "none"
GAMES: Final = (START, "DxMI", "temperature 0", "Gaussian negatives")
WHOLE: Final = "whole energy"
ALONE: Final = "autoencoder alone"
STARTS: Final[Mapping[str, str]] = {
    "reconstruction": "",
    "random weights": "energy.pretrain_steps=0",
    "a code of 128": "energy.bottleneck=128",
}
"""Where the games begin, as `energyad.settings.text` reads it. A wide code reproduces more of what is no good part."""
SPHERE: Final = "one energy for all categories, on the sphere"
"""Start of `benchmarks.detection.sphere_games`."""
IMAGE_SIZE: Final = 256
NUM_RADIUS: Final = 4096
"""Data points that the radius of samples is measured on."""


class GaussianNegatives(DxMITrainer):
    """The control: the energy learns as in DxMI, but from good latents plus Gaussian noise instead of samples.

    Args:
        radius: Standard deviation of the noise: that of DxMI's samples about the data that their chains began from.
        **options: Of `DxMITrainer`.
    """

    def __init__(self, *, radius: float, **options: Any) -> None:
        super().__init__(**options)
        self.radius = radius

    def update(self) -> Float[Tensor, " 6"]:
        """One iteration of the energy alone."""
        size, learner = self.settings.batch_size, self.learner
        learner.set_learning_rates(self.iteration)
        beside = self.draw_data(size, generator=self.generator)
        negatives = beside + self.radius * torch.randn(beside.shape, generator=self.generator)
        of_energy = learner.update_energy(self.draw_data(size, generator=self.generator), negatives)
        learner.update_averages(self.iteration)
        self.iteration += 1
        return torch.cat([of_energy, of_energy.new_zeros(3)])


@torch.no_grad()
def radius_of(trainer: DxMITrainer, *, seed: int = 0) -> float:
    """Return the root mean square distance, per dimension, of samples from the data that their chains began from."""
    generator = torch.Generator().manual_seed(seed)
    data = trainer.draw_data(NUM_RADIUS, generator=generator)
    route = trainer.schedule.route(trainer.schedule.num_steps)
    start = trainer.schedule.noise(data, 0, generator)
    samples = trainer.sampler.rollout(start, generator=generator, route=route).samples
    return float((samples - data).square().mean().sqrt())


@dataclass(frozen=True)
class Game:
    """One game on one scale.

    Attributes:
            energy: What it ended with, whether a fit would keep that or the start.
        seconds: Of the processor.
        figures: Health and radius; empty of the start.
    """

    energy: PatchEnergy
    seconds: float
    figures: dict[str, float]


def play_all(start: PatchEnergy, latents: Latents, settings: FitSettings) -> dict[str, Game]:
    """Play all games from one start, each with the same random numbers.

    Args:
        start: Energy of one scale before DxMI.
        latents: What to train on.
        settings: Of the scale.
    """
    trainers: list[DxMITrainer] = []

    def sampled(**options: Any) -> DxMITrainer:
        trainers.append(DxMITrainer(**options))
        return trainers[-1]

    def with_noise(**options: Any) -> DxMITrainer:
        return GaussianNegatives(radius=radius_of(trainers[0]), **options)

    cold = settings.with_values({"dxmi.temperature": 0.0})
    games = {
        START: Game(start, 0.0, {}),
        "DxMI": _play(start, latents, settings, sampled),
        "temperature 0": _play(start, latents, cold, sampled),
        "Gaussian negatives": _play(start, latents, settings, with_noise),
    }
    games["DxMI"].figures["radius"] = radius_of(trainers[0])
    return games


def _play(
    start: PatchEnergy, latents: Latents, settings: FitSettings, new_trainer: Callable[..., DxMITrainer]
) -> Game:
    began = time.process_time()
    trainers: list[DxMITrainer] = []

    def kept(**options: Any) -> DxMITrainer:
        trainers.append(new_trainer(**options))
        return trainers[-1]

    trained = train_dxmi(
        copy.deepcopy(autoencoder_of(start)).requires_grad_(True).train(),
        latents.training,
        latents.held_out.flatten(0, 1),
        settings=settings,
        generator=torch.Generator().manual_seed(settings.seed),
        progress=NullProgress(),
        synthetic=latents.synthetic,
        new_trainer=kept,
    )
    seconds = time.process_time() - began
    energy = with_autoencoder(start, cast(LatentEnergy, trainers[-1].averaged_energy))
    if energy.reranker is not None:
        match_medians(energy.latent_energy, energy.reranker, latents.held_out)
    figures = {} if trained.health is None else asdict(trained.health)
    return Game(energy.eval().requires_grad_(False), seconds, figures)


def autoencoder_of(energy: PatchEnergy) -> LatentEnergy:
    """Return the part of an energy that DxMI trains."""
    learned = energy.latent_energy
    if isinstance(learned, MemoryBankEnergy):
        learned = learned.learned
    return learned.energy if isinstance(learned, DiscriminatorEnergy) else learned


def with_autoencoder(energy: PatchEnergy, autoencoder: LatentEnergy) -> PatchEnergy:
    """Return an energy with another autoencoder."""
    changed = copy.deepcopy(energy)
    latent_energy = changed.latent_energy
    learned = latent_energy.learned if isinstance(latent_energy, MemoryBankEnergy) else latent_energy
    if isinstance(learned, DiscriminatorEnergy):
        learned.energy = autoencoder
    elif isinstance(latent_energy, MemoryBankEnergy):
        latent_energy.learned = autoencoder
    else:
        changed.latent_energy = autoencoder
    return changed


def prepare(category: Category, settings: FitSettings, *, threads: int) -> PreparedCategory:
    """Extract what a fit of a category needs."""
    distinct = leave_out_copies(
        {category.name: list(category.train_good)}, settings, threads, skip_bad=False, max_pixels=10**9
    )[category.name]
    settings = shape_input(settings, distinct.shapes)
    backbone = open_backbone(
        distinct.images, settings, weights_file=None, threads=threads, skip_bad=False, max_pixels=10**9
    )
    context = FitContext(
        settings=settings,
        session=backbone.session,
        grid=backbone.extractor.grid,
        scales=backbone.extractor.scales,
    )
    return prepare_category(category.name, distinct.images, context)


def measure_games(
    category: Category, settings: FitSettings, starts: Sequence[str], *, threads: int
) -> Iterator[dict[str, Any]]:
    """Fit a category from each start, play all games, and measure each on the test images.

    Args:
        category: Good images and test images.
        settings: Of the fit, the seed included.
        starts: Names of `STARTS`.
        threads: Of the backbone.

    Yields:
        A row without its provenance for each start, game and view.
    """
    prepared = prepare(category, settings, threads=threads)
    context = prepared.context
    features = features_of_test(category, context.session, context.settings.input.shape)
    for start in starts:
        changed = overridden(prepared.context.settings, ["dxmi.iterations=0", *STARTS[start].split()])
        context = replace(prepared.context, settings=changed)
        with any_code():
            played = _games_of(prepared, context)
        for game in GAMES:
            by_scale = [games[game] for games in played]
            for view in (WHOLE, ALONE):
                head = _head(prepared, context, [one.energy for one in by_scale], view)
                yield {
                    "start": start,
                    "game": game,
                    "view": view,
                    "category": category.name,
                    "seed": settings.seed,
                    "num_test": len(category.test),
                    **figures_of(category, head, features),
                    "game_cpu_seconds": round(sum(one.seconds for one in by_scale), 1),
                    "health": [rounded(one.figures) for one in by_scale if one.figures],
                }


@contextmanager
def any_code() -> Iterator[None]:
    """Let a fit give an autoencoder a code as wide as its latents."""
    least, training.MIN_COMPRESSION = training.MIN_COMPRESSION, 1
    try:
        yield
    finally:
        training.MIN_COMPRESSION = least


def _games_of(prepared: PreparedCategory, context: FitContext) -> list[dict[str, Game]]:
    """Games of each scale."""
    generator = torch.Generator()
    generator.set_state(prepared.generator.get_state())
    with single_thread():
        energy, _ = fit_multiscale_energy(prepared.patches, context, generator)
        played = []
        for of_scale, scale, patches in zip(energy.by_scale(), context.scales, prepared.patches, strict=True):
            latents = to_latents(patches, of_scale.whitening)
            settings = for_scale(prepared.context.settings, scale)
            played.append(play_all(of_scale, latents, settings))
    return played


def _head(
    prepared: PreparedCategory, context: FitContext, energies: Sequence[PatchEnergy], view: str
) -> EnergyHead:
    if view == ALONE:
        return head_of(Finest(PatchEnergy(energies[0].whitening, autoencoder_of(energies[0]))), context)
    return head_of(_with_held_out(prepared, context, energies), context)


def head_of(energy: CategoryEnergy, context: FitContext) -> EnergyHead:
    """Return an energy as scores and heatmaps, by the settings of a fit."""
    head = EnergyHead(
        energy,
        grid=context.grid,
        smoothing=context.settings.heatmap.smoothing,
        contrast=context.settings.heatmap.contrast,
        tiles=context.settings.input.tiling,
    )
    return head.eval().requires_grad_(False)


def _with_held_out(
    prepared: PreparedCategory, context: FitContext, energies: Sequence[PatchEnergy]
) -> CategoryEnergy:
    """The product of the scales, whose memory banks know the held-out parts too, as after a fit."""

    combined = combine_scales(energies, context.scales, context.grid, context.settings.energy.coarse_weight)
    return prepared.fitted("benchmark", combined).with_held_out().energy


def rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """Return figures as rows hold them."""
    return {name: round(value, 4) for name, value in figures.items()}


def store(row: Mapping[str, Any], results: Path, *, settings_hash: str, threads: int) -> None:
    """Append a row with its provenance, and print its figures."""
    stamp = vars(provenance.stamp(threads=threads))
    provenance.append_row(results, {**row, "settings_hash": settings_hash, **stamp})
    figures = {key: row[key] for key in ("image_auroc", "pixel_auroc", "aupro")}
    print(row["category"], row["seed"], row["start"], row["game"], row["view"], figures, flush=True)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Append the rows of each category, seed and start that has none yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection.games", description=__doc__)
    parser.add_argument("--data-root", action="append", type=Path)
    parser.add_argument("--categories", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=["reconstruction"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    present = {(row["category"], row["seed"], row["start"]) for row in provenance.read_rows(options.results)}
    for seed in options.seeds:
        for name in options.categories:
            starts = [start for start in options.starts if (name, seed, start) not in present]
            if not starts:
                continue
            settings = FitSettings().with_values({"input.image_size": IMAGE_SIZE, "seed": seed})
            hashed = settings_hash({**settings.to_dict(), "seed": None})
            category = open_anywhere(name, options.data_root)
            for row in measure_games(category, settings, starts, threads=options.threads):
                store(row, options.results, settings_hash=hashed, threads=options.threads)


if __name__ == "__main__":
    sys.exit(main())
