"""Request context, log, metrics and traces."""
