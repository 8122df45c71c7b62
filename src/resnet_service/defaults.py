"""Default values that several packages share."""

# Classes that an answer names.
DEFAULT_TOP_K = 5
# Pixels of the largest image that is decoded.
DEFAULT_MAX_PIXELS = 50_000_000
# Memory that all images together take while they are decoded: what the shipped memory limit leaves.
DEFAULT_MAX_DECODING_BYTES = 768 * 2**20
# Percentage points of top-1 accuracy that an exported model may lose.
DEFAULT_MAX_LOSS = 1.0
