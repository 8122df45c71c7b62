"""Sources of published weights: one module per source."""
