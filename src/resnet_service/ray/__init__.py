"""Batches and serving on a Ray cluster; the only modules that import Ray."""
