"""Accuracy, calibration error and latency of a model, measured through the pipeline that serves it."""
