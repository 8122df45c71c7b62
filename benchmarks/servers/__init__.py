"""The other servers, written as their documentation recommends; each runs in its own environment."""
