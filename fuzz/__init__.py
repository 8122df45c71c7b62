"""What attacks the readers of strangers' files: coverage-guided fuzzing, damage, and bombs."""
