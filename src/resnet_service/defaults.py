"""Default values that several packages share."""

# Classes that an answer names.
DEFAULT_TOP_K = 5
# Pixels of the largest image that is decoded.
DEFAULT_MAX_PIXELS = 50_000_000
# Percentage points of top-1 accuracy that an exported model may lose.
DEFAULT_MAX_LOSS = 1.0
