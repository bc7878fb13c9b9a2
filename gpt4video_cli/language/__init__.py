"""From segments of text and embeddings to streamed tokens."""
