"""Headers of every response, also of those that the server sends without asking the application."""

# Browsers must not guess another content type, and other sites must not embed a response.
RESPONSE_HEADERS = (("X-Content-Type-Options", "nosniff"), ("Cross-Origin-Resource-Policy", "same-origin"))
