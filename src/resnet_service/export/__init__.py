"""Preparing models: fetching weights, converting them to checkpoints, exporting checkpoints."""
