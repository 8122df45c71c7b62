"""Benchmarks of this service and other servers in one run; see README.md."""
