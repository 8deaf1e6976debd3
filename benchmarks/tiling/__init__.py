"""Tiles against plain resizing, on large images with small defects."""
