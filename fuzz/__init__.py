"""Attacks on the readers of untrusted files: coverage-guided fuzzing, damaged files, and bombs."""
