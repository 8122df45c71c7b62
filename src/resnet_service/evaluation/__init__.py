"""Measuring a model's accuracy through the pipeline that serves it."""
