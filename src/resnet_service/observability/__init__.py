"""What operators see: request context, logs, metrics, traces."""
