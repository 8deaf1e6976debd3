"""Peak memory and seconds of one update against the number of steps, each in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.dxdp.targets import QuadraticEnergy, curvatures
from energyad.dxmi import DxMISettings, DxMITrainer

STEPS = (5, 10, 50, 100)
METHODS = ("dxdp", "through_time")
DIMS, UPDATES = 128, 10


def rows() -> Iterator[dict[str, Any]]:
    """One row a method and number of steps."""
    for steps in STEPS:
        for method in METHODS:
            command = [sys.executable, "-m", "benchmarks.dxdp.resources", method, str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            yield json.loads(done.stdout.splitlines()[-1])


def measure(method: str, steps: int) -> dict[str, Any]:
    """Peak memory of the process, its libraries among it, and processor time of an update.

    An update of DxDP looks at four steps of the chains, drawn anew. The chains themselves are drawn before, without
    gradients, and counted beside.
    """
    torch.set_num_threads(1)
    settings = DxMISettings(
        num_steps=steps,
        batch_size=256,
        hidden_widths=(512, 512, 512),
        steps_per_update=4,
        sampler_update="through_time" if method == "through_time" else "dynamic_programming",
    )
    generator = torch.Generator().manual_seed(0)
    trainer = DxMITrainer(
        energy=QuadraticEnergy(curvatures(DIMS, equal=True)),
        data=torch.randn(1000, DIMS, generator=generator),
        settings=settings,
        generator=generator,
    )
    rollout_seconds = update_seconds = 0.0
    for _ in range(UPDATES):
        mark = time.process_time()
        chains = trainer.trajectory(settings.batch_size, generator=generator)
        rollout_seconds += time.process_time() - mark
        mark = time.process_time()
        trainer.update_sampler_and_value(chains)
        update_seconds += time.process_time() - mark
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "part": "resources",
        "method": method,
        "steps": steps,
        "peak_megabytes": peak / 1024,
        "rollout_cpu_seconds": rollout_seconds / UPDATES,
        "update_cpu_seconds": update_seconds / UPDATES,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
