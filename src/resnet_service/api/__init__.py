"""The HTTP interface: FastAPI and Starlette are used here and nowhere below."""
