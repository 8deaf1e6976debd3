"""From patch features to energies: whitening, networks, memory bank, reranking, discriminator."""
