"""Experiments, one folder each: a command, its configuration, its results and its pictures."""
