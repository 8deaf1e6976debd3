"""From energies to results: scorer, heatmaps, calibration, regions, predictions."""
