"""Runtimes: OpenVINO for exported models, PyTorch for checkpoints."""
