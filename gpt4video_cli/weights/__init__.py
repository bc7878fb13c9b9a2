"""Model cards, and where the weights that they name are found."""
