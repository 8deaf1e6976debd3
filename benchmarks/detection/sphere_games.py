"""`python -m benchmarks.detection.sphere_games`: DxMI in the paper's own setting for defects, beside its controls.

One energy for all categories together: patches of the finest scale on the unit sphere, a wide autoencoder, and tens of
thousands of updates (Yoon et al., NeurIPS 2024; the autoencoder on the sphere is that of their arXiv 2502.13280). The
games are those of `benchmarks.detection.games`, and so are the rows.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks import provenance
from benchmarks.command import command
from benchmarks.detection.data import open_anywhere
from benchmarks.detection.games import (
    ALONE,
    GAMES,
    IMAGE_SIZE,
    RESULTS,
    SPHERE,
    START,
    GaussianNegatives,
    head_of,
    prepare,
    radius_of,
    rounded,
    store,
)
from benchmarks.detection.heads import Finest, features_of_test, figures_of
from benchmarks.detection.rows import settings_hash
from energyad.data.datasets import Category
from energyad.dxmi import DxMITrainer
from energyad.dxmi.diagnosis import measure_health
from energyad.energy.latent_energy import LatentEnergy, LatentEnergySizes
from energyad.energy.networks import AutoencoderEnergy
from energyad.energy.patch_energy import PatchEnergy
from energyad.energy.whitening import Whitening
from energyad.fitting.category import single_thread
from energyad.fitting.context import FitContext
from energyad.fitting.training import pretrain_autoencoder
from energyad.progress import NullProgress
from energyad.settings import FitSettings

ITERATIONS: Final = 20_000
WIDTH: Final = 1024
BOTTLENECK: Final = 128
PRETRAINING_STEPS: Final = 6000
MAX_PATCHES: Final = 40_000
"""Of each category at the most, drawn at random."""
MAX_HELD_OUT: Final = 4000


def to_sphere(x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
    """Return vectors of length √k: the unit sphere, in units in which coordinates have a mean square of one."""
    return nn.functional.normalize(x, dim=-1) * x.shape[-1] ** 0.5


class ToSphere(nn.Module):
    """Features to the sphere, where another energy whitens them.

    Args:
        num_channels: Of the features.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.mean = torch.zeros(num_channels)

    def forward(self, features: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Return the features on the sphere."""
        return to_sphere(features)


class SphereEnergy(LatentEnergy):
    """An energy of directions: samples that leave the sphere are brought back to it.

    Args:
        energy: Of points on the sphere.
    """

    def __init__(self, energy: AutoencoderEnergy) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
        """Return the energies of directions."""
        return self.energy(to_sphere(z))

    def sizes(self) -> LatentEnergySizes:
        """Return the network's sizes."""
        return self.energy.sizes()


@dataclass(frozen=True, eq=False)
class Measured:
    """A category whose test images were seen.

    Attributes:
        category: With its test images.
        context: Of a fit of it.
        features: Of the test images.
    """

    category: Category
    context: FitContext
    features: Sequence[Tensor]

    def figures(self, energy: LatentEnergy, num_channels: int) -> dict[str, float | None]:
        """Return image AUROC, pixel AUROC and AUPRO of an energy alone."""
        whitening = cast(Whitening, ToSphere(num_channels))
        head = head_of(Finest(PatchEnergy(whitening, energy)), self.context)
        return figures_of(self.category, head, self.features)


@dataclass(frozen=True, eq=False)
class Together:
    """All categories.

    Attributes:
        training: Patches on the sphere, of all of them.
        held_out: Likewise, of images that are not trained on.
        measured: Each category.
    """

    training: Float[Tensor, "n k"]
    held_out: Float[Tensor, "m k"]
    measured: Sequence[Measured]


def see(categories: Sequence[Category], settings: FitSettings, *, threads: int) -> Together:
    """Extract the patches of all categories.

    Args:
        categories: Good images and test images.
        settings: Of the fit; its seed draws the patches.
        threads: Of the backbone.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    training: list[Tensor] = []
    held_out: list[Tensor] = []
    measured = []
    for category in categories:
        prepared = prepare(category, settings, threads=threads)
        context, patches = prepared.context, prepared.patches[0]
        for drawn, source, count in (
            (training, patches.fitted, MAX_PATCHES),
            (held_out, patches.held_out, MAX_HELD_OUT),
        ):
            flat = source.flatten(0, -2)
            chosen = torch.randperm(len(flat), generator=generator)[:count]
            drawn.append(to_sphere(flat[chosen].float()))
        features = features_of_test(category, context.session, context.settings.input.shape)
        measured.append(Measured(category, context, features))
    return Together(torch.cat(training), torch.cat(held_out), measured)


def play(
    together: Together, settings: FitSettings
) -> Iterator[tuple[str, LatentEnergy, float, dict[str, Any]]]:
    """Pretrain one autoencoder, and play all games from it.

    Args:
        together: All categories.
        settings: Of the energy and of DxMI.

    Yields:
        Name, energy, processor seconds and health of each game, the start first.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    num_channels = together.training.shape[1]
    autoencoder = AutoencoderEnergy(
        num_channels, width=settings.energy.width, bottleneck=settings.energy.bottleneck, generator=generator
    )
    start = SphereEnergy(
        pretrain_autoencoder(
            autoencoder,
            together.training,
            together.held_out,
            settings=settings,
            generator=generator,
            progress=NullProgress(),
        )
    )
    yield START, start, 0.0, {}
    radius = 0.0
    for game in GAMES[1:]:
        dxmi = replace(settings.dxmi, temperature=0.0) if game == "temperature 0" else settings.dxmi
        new_trainer: Callable[..., DxMITrainer] = DxMITrainer
        options: dict[str, Any] = {}
        if game == "Gaussian negatives":
            new_trainer, options = GaussianNegatives, {"radius": radius}
        began = time.process_time()
        trainer = new_trainer(
            energy=copy.deepcopy(start).requires_grad_(True).train(),
            data=together.training,
            settings=dxmi,
            generator=torch.Generator().manual_seed(settings.seed),
            **options,
        )
        trainer.pretrain()
        first_sampler = copy.deepcopy(trainer.sampler)
        history = list(trainer.run(settings.dxmi.iterations))
        health = asdict(measure_health(trainer, history, first_sampler=first_sampler))
        if game == GAMES[1]:
            radius = health["radius"] = radius_of(trainer)
        yield game, cast(LatentEnergy, trainer.averaged_energy), time.process_time() - began, health


def measure(
    categories: Sequence[Category], settings: FitSettings, *, threads: int
) -> Iterator[dict[str, Any]]:
    """Yield a row without its provenance for each game and category.

    Args:
        categories: Good images and test images.
        settings: Of the fit, the seed included.
        threads: Of the backbone.
    """
    together = see(categories, settings, threads=threads)
    num_channels = together.training.shape[1]
    with single_thread():
        for game, energy, seconds, health in play(together, settings):
            scorer = copy.deepcopy(energy).eval().requires_grad_(False)
            for one in together.measured:
                yield {
                    "start": SPHERE,
                    "game": game,
                    "view": ALONE,
                    "category": one.category.name,
                    "seed": settings.seed,
                    "num_test": len(one.category.test),
                    **one.figures(scorer, num_channels),
                    "iterations": settings.dxmi.iterations,
                    "game_cpu_seconds": round(seconds, 1),
                    "health": [rounded(health)] if health else [],
                }


def settings_for(seed: int, iterations: int) -> FitSettings:
    """The default fit's game, longer, with a wider and deeper code."""
    return FitSettings().with_values(
        {
            "input.image_size": IMAGE_SIZE,
            "seed": seed,
            "energy.width": WIDTH,
            "energy.bottleneck": BOTTLENECK,
            "energy.pretrain_steps": PRETRAINING_STEPS,
            "dxmi.iterations": iterations,
        }
    )


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Append the rows of each seed that has none yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection.sphere_games", description=__doc__)
    parser.add_argument("--data-root", action="append", type=Path)
    parser.add_argument("--categories", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = provenance.read_rows(options.results)
    present = {row["seed"] for row in rows if (row["start"], row["game"]) == (SPHERE, GAMES[-1])}
    categories = [open_anywhere(name, options.data_root) for name in options.categories]
    for seed in (seed for seed in options.seeds if seed not in present):
        settings = settings_for(seed, options.iterations)
        hashed = settings_hash({**settings.to_dict(), "seed": None})
        for row in measure(categories, settings, threads=options.threads):
            store(row, options.results, settings_hash=hashed, threads=options.threads)


if __name__ == "__main__":
    sys.exit(main())
