"""The HTTP API; packages below it import neither FastAPI nor Starlette."""
