"""energyad: visual anomaly detection with a learned energy function."""
