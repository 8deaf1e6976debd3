"""The loop keeps its promises: bit-equal resume, honest records, clear ends, any event."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from energyad.dxmi import DxMISettings, DxMITrainer, GaussianSampler, MLPEnergy, NoiseSchedule
from energyad.errors import DataError, ModelError, SettingsError, TrainingDiverged

from .players import ring, seeded, small_trainer

EVERYTHING = {
    "decay_iterations": 30,
    "pretrain_iterations": 5,
    "running_cost": "adaptive",
    "trained_steps": (1, 3),
    "chains_per_update": 16,
    "steps_per_update": 2,
    "sigma_lr": 1e-4,
    "last_sigma": 0.1,
    "frozen_sampler_iterations": 4,
    "value_updates_per_sampler_update": 2,
    "sampler_gradient_clip": 0.1,
}


def resumed(trainer: DxMITrainer, folder) -> DxMITrainer:
    trainer.save_checkpoint(folder)
    return DxMITrainer.load_checkpoint(folder, energy=MLPEnergy(2, (16,), generator=seeded(77)), data=ring())


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, EVERYTHING, {"start": "noised_data"}])
def test_a_resumed_run_is_bit_equal_to_an_unpaused_one(tmp_path, options):
    unpaused, paused = small_trainer(**options), small_trainer(**options)
    records = list(unpaused.run(20, record_every=10))
    first = list(paused.run(10, record_every=10))
    later = resumed(paused, tmp_path)
    assert first + list(later.run(10, record_every=10)) == records
    state, expected = later.state(), unpaused.state()
    assert state.counters == expected.counters and state.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(state.tensors[name], expected.tensors[name]) for name in expected.tensors)


def test_the_same_seed_gives_the_same_run():
    assert list(small_trainer().run(5)) == list(small_trainer().run(5))
    assert list(small_trainer().run(5)) != list(small_trainer(seed=1).run(5))


def test_training_leaves_the_global_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(small_trainer(pretrain_iterations=2).run(3))
    assert torch.equal(torch.rand(3), expected)


def test_records_come_when_asked_and_at_the_end():
    trainer = small_trainer()
    assert [record.iteration for record in trainer.run(25, record_every=10)] == [10, 20, 25]
    assert len(next(trainer.run(1)).sigmas) == 3


def test_divergence_ends_in_one_clear_line_and_the_last_good_state():
    trainer = small_trainer()
    list(trainer.run(10))
    good = trainer.state()
    with torch.no_grad():
        poisoned = trainer.data.clone()
    trainer.data = poisoned * float("nan")
    with pytest.raises(
        TrainingDiverged, match=r"iteration 15: losses .* last good state was kept; lower"
    ) as error:
        list(trainer.run(10, record_every=5))
    assert "\n" not in str(error.value)
    state = trainer.state()
    assert all(torch.equal(state.tensors[name], good.tensors[name]) for name in good.tensors)
    trainer.data = poisoned
    assert next(trainer.run(5)).iteration == 15


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"energy_bound": 1e-9}, "raise energy_regularization"), ({"sigma_bounds": (0.9, 1.0)}, "sigmas are")],
)
def test_energies_and_sigmas_out_of_bounds_count_as_divergence(options, reason):
    with pytest.raises(TrainingDiverged, match=reason):
        list(small_trainer(**options).run(10))


def test_unusable_data_is_refused():
    settings = DxMISettings()
    energy = MLPEnergy(2, generator=seeded())
    for data in (torch.zeros(0, 2), torch.tensor([[0.0, float("inf")]])):
        with pytest.raises(DataError, match="finite"):
            DxMITrainer(energy=energy, data=data, settings=settings, generator=seeded())


def test_default_networks_refuse_events_that_are_no_vectors():
    with pytest.raises(SettingsError, match="pass your own"):
        DxMITrainer(
            energy=nn.Identity(), data=torch.zeros(4, 3, 8, 8), settings=DxMISettings(), generator=seeded()
        )


class Flat(nn.Module):
    """Any event in, `out` numbers out, through one linear map of the event and the times."""

    def __init__(self, event: tuple[int, ...], times: int, out: tuple[int, ...]) -> None:
        super().__init__()
        self.out = out
        self.linear = nn.Linear(
            int(torch.tensor(event).prod()) + times, max(1, int(torch.tensor(out).prod()))
        )

    def forward(self, x: Tensor, times: Tensor | None = None) -> Tensor:
        flat = x.flatten(1) if times is None else torch.cat([x.flatten(1), times], dim=1)
        return self.linear(flat).view(len(x), *self.out)


@pytest.mark.parametrize("start", ["noise", "noised_data"])
@pytest.mark.parametrize("cost", ["path", "adaptive"])
@pytest.mark.parametrize("update", ["dynamic_programming", "through_time"])
def test_small_images_play_with_networks_of_their_own(start, cost, update):
    event = (3, 4, 4)
    settings = DxMISettings(
        num_steps=2,
        batch_size=8,
        start=start,
        running_cost=cost,
        sampler_update=update,
        pretrain_iterations=2,
    )
    sampler = GaussianSampler(Flat(event, 2, event), NoiseSchedule.from_settings(settings))
    trainer = DxMITrainer(
        energy=Flat(event, 0, ()),
        data=torch.randn(20, *event, generator=seeded()),
        settings=settings,
        generator=seeded(),
        sampler=sampler,
        value=Flat(event, 1, ()),
    )
    list(trainer.run(3))
    assert trainer.sample(5, generator=seeded()).shape == (5, *event)
    assert trainer.trajectory(5, generator=seeded()).states.shape == (3, 5, *event)


def test_noised_data_starts_near_the_data():
    trainer = small_trainer(start="noised_data")
    start = trainer.start(5000, generator=seeded())
    alpha_bar = trainer.schedule.alpha_bars[0]
    expected = alpha_bar * trainer.data.var() + 1 - alpha_bar
    assert alpha_bar > 0.7
    assert start.var().item() == pytest.approx(expected.item(), rel=0.05)


def test_averaged_energy_lags_behind_the_energy():
    trainer = small_trainer(energy_average=0.0)
    list(trainer.run(3))
    for weight, average in zip(
        trainer.energy.parameters(), trainer.averaged_energy.parameters(), strict=True
    ):
        torch.testing.assert_close(weight, average)
    lagging = small_trainer(energy_average=0.99)
    list(lagging.run(30))
    moved = [
        (p - q).abs().max()
        for p, q in zip(lagging.energy.parameters(), lagging.averaged_energy.parameters(), strict=True)
    ]
    assert max(moved) > 0


def test_learning_rates_decay_to_their_floor_and_stay():
    trainer = small_trainer(decay_iterations=10, final_lr_fraction=0.25, energy_lr=1e-3)
    list(trainer.run(15))
    assert trainer.learner.optimizers["energy"].param_groups[0]["lr"] == pytest.approx(0.25e-3)


def test_a_broken_checkpoint_is_named(tmp_path):
    trainer = small_trainer()
    with pytest.raises(ModelError, match="cannot read"):
        DxMITrainer.load_checkpoint(tmp_path, energy=trainer.energy, data=trainer.data)
    trainer.save_checkpoint(tmp_path)
    list(trainer.run(1))
    other = tmp_path / "other"
    trainer.save_checkpoint(other)
    (tmp_path / "training.safetensors").write_bytes((other / "training.safetensors").read_bytes())
    with pytest.raises(ModelError, match="different moments"):
        DxMITrainer.load_checkpoint(tmp_path, energy=trainer.energy, data=trainer.data)
    description = json.loads((other / "training.json").read_text())
    (other / "training.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(ModelError, match="format 99"):
        DxMITrainer.load_checkpoint(other, energy=trainer.energy, data=trainer.data)


def test_a_checkpoint_of_other_networks_is_named(tmp_path):
    trainer = small_trainer()
    trainer.save_checkpoint(tmp_path)
    with pytest.raises(ModelError, match="does not fit the given energy"):
        DxMITrainer.load_checkpoint(tmp_path, energy=MLPEnergy(2, (8,), generator=seeded()), data=ring())


def test_trained_steps_must_be_steps_of_the_schedule():
    with pytest.raises(SettingsError, match="trained_steps"):
        replace(DxMISettings(num_steps=3), trained_steps=(1, 4))


def test_averaged_sampler_starts_at_the_pretrained_one_and_lags():
    trainer = small_trainer(pretrain_iterations=3, sampler_average=0.99)
    trainer.pretrain()
    assert torch.equal(
        trainer.sample(9, generator=seeded(1)), trainer.sample(9, generator=seeded(1), averaged=True)
    )
    list(trainer.run(20))
    assert not torch.equal(
        trainer.sample(9, generator=seeded(1)), trainer.sample(9, generator=seeded(1), averaged=True)
    )
