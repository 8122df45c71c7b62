"""Model files: metadata, labels, checkpoints, exported models."""
