"""Inference: from encoded image bytes to an answer, in a bounded pool of threads."""
