"""energyad beside PatchCore, PaDiM and simple rules on the same features: `python -m benchmarks.detection`."""
