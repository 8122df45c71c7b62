"""Checkpoints, weights and metadata in one file; one module for each file format."""
