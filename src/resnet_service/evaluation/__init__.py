"""How good a model is, measured through the pipeline that serves it."""
