"""The model folder: manifest, files, assembly of its modules, card, provenance."""
