"""Model cards, where models are found, and conversion from public checkpoint formats."""
