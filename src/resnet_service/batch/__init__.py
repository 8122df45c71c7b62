"""Batch jobs: stored images are listed, divided into shards, classified by an engine and written as Parquet."""
