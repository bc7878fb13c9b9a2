"""A generation prompt becomes frames, and frames become a clip with its side-car. READ: generator.py."""
