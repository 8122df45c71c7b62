"""Where published weights come from: one module per source."""
