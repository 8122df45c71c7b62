"""One server process: start-up, sockets, signals, health check."""
