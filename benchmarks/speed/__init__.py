"""Images a second, latency and memory beside the bare backbone and anomalib."""
