"""Numbers with their units, formatted for people."""


def megabytes(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 2**20:.1f} MB"
