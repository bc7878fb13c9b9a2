"""Frames to embeddings: visual encoder, abstractor, prompt templates, and the loading of a whole model folder."""
