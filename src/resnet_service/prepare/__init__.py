"""Preparing models: everything that needs PyTorch and happens before serving."""
