"""Benchmarks: this service beside others, in one run. README.md says how and why."""
