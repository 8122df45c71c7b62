"""Stored images by the million: listed, divided into parts, classified by an engine, written as Parquet."""
