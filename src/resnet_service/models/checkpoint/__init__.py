"""Checkpoints: weights and metadata in one file; one module per file format."""
