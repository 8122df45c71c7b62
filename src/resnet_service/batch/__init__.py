"""Batches of stored images: listing, sharding, classification by an engine, Parquet output."""
