"""The server, of one process or several: start-up, sockets, HTTP/1.1, signals, health check."""
