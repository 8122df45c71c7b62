"""ASGI middleware, one class a module; ``stack`` has their order."""
