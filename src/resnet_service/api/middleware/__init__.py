"""ASGI middleware: one module a class, and their order."""
