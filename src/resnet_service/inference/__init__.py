"""From encoded image bytes to an answer, and the threads it runs in."""
