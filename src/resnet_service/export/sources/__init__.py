"""Sources of published weights, one module for each."""
