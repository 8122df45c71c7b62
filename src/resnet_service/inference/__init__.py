"""The classifier, from encoded image to ranked answer, and the threads that it runs in."""
