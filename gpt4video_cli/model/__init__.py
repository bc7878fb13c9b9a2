"""From frames to embeddings that a language model can read."""
