"""A station between real programs: throughput, and faults."""
