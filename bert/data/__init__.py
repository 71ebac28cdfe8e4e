"""Shards of pre-training data: formats, one global order, masking, and the loader."""
