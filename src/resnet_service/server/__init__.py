"""One server process: start, sockets, signals, health check."""
