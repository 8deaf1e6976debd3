"""DxMI on two-dimensional targets whose density is known: `python -m benchmarks.toy_2d`."""
