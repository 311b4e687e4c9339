"""What people read."""


def counted(number: int, noun: str) -> str:
    """``1 result``, ``2 results``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
