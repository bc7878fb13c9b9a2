"""Clips with known truth, and what can be asked and said about them."""
