"""The server process: start-up, connections, signals, health check."""
