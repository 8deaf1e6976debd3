"""The benchmark's own instruments: exact densities, honest distances, jobs that keep their rows."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.toy_2d.__main__ import FOLDER, read_rows, rows_of
from benchmarks.toy_2d.config import read_jobs
from benchmarks.toy_2d.measures import energy_quality, sample_quality, sliced_wasserstein
from benchmarks.toy_2d.tables import PLACE, tables
from benchmarks.toy_2d.targets import BOX, TARGETS, target
from energyad.errors import DataError, SettingsError
from tests.dxmi.players import seeded


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_is_a_density_on_its_box(name):
    axis = torch.linspace(-BOX - 1, BOX + 1, 401)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    density = target(name).log_density(points).exp()
    assert density.sum().item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize("name", TARGETS)
def test_draws_of_a_target_follow_its_density(name):
    truth = target(name)
    # E[1 / p(x)] over a region is its area: here of the points denser than the threshold, counted on a grid.
    x = truth.sample(40_000, seeded())
    log_density, threshold = truth.log_density(x), -4.0
    axis = torch.linspace(-BOX, BOX, 401)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).flatten(0, 1)
    area = (truth.log_density(grid) > threshold).float().mean().item() * (2 * BOX) ** 2
    estimate = ((log_density > threshold) * (-log_density).exp()).mean().item()
    assert estimate == pytest.approx(area, rel=0.05)


def test_unknown_targets_are_named():
    with pytest.raises(SettingsError, match="'moons'"):
        target("moons")


def test_sliced_wasserstein_of_a_shift_is_the_shift_over_root_two():
    x = torch.randn(5000, 2, generator=seeded())
    assert sliced_wasserstein(x, x) == 0
    assert sliced_wasserstein(x, x + torch.tensor([3.0, 0.0])) == pytest.approx(3 / math.sqrt(2), rel=1e-3)


def test_the_true_density_reaches_its_own_ceiling_and_its_opposite_does_not():
    truth = target("eight_gaussians")
    best = energy_quality(lambda x: -truth.log_density(x), truth, seed=0)
    assert best.auroc == best.true_auroc == pytest.approx(0.901, abs=0.005)
    assert best.spearman == pytest.approx(1)
    worst = energy_quality(truth.log_density, truth, seed=0)
    assert worst.auroc == pytest.approx(1 - best.auroc) and worst.spearman == pytest.approx(-1)


def test_a_lost_mode_is_seen():
    truth = target("eight_gaussians")
    x = truth.sample(20_000, seeded())
    whole = sample_quality(x, truth, seed=1)
    assert whole.modes == 8 and whole.mode_error < 1
    broken = sample_quality(x[truth.nearest(x)[0] != 3], truth, seed=1)
    assert broken.modes == 7 and broken.mode_error == pytest.approx(12.5)


def test_every_run_has_every_seed_and_its_own_key():
    jobs = read_jobs(quick=False)
    assert len({job.key for job in jobs}) == len(jobs)
    assert {job.seed for job in jobs if job.run == "pretrained"} == {0, 1, 2, 3, 4}
    assert {job.run for job in read_jobs(quick=True)} == {job.run for job in jobs}
    assert all(job.iterations <= 100 for job in read_jobs(quick=True))
    assert all(job.settings.pretrain_iterations == 0 for job in jobs if job.run == "scratch")


def test_results_not_begun_are_no_rows(tmp_path):
    assert read_rows(tmp_path / "results.jsonl") == []


def test_tables_stay_between_their_marks(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{PLACE.start}\nold\n{PLACE.end}\nbelow\n")
    PLACE.fill(readme, "new")
    assert readme.read_text() == f"above\n{PLACE.start}\n\nnew\n\n{PLACE.end}\nbelow\n"
    readme.write_text("no marks")
    with pytest.raises(DataError, match="no markers"):
        PLACE.fill(readme, "new")


def test_every_run_has_its_row_and_the_readme_its_tables():
    jobs = read_jobs(quick=False)
    rows = rows_of(jobs, FOLDER)
    assert [row["key"] for row in rows] == [job.key for job in jobs]
    old, new = PLACE.filled(FOLDER / "README.md", tables(rows))
    assert old == new
