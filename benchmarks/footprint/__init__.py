"""Time and memory of the program as a user runs it: help, fit, score."""
