"""Numbers and tables as people read them."""

from __future__ import annotations


def format_value(value: float) -> str:
    """Return `value` with three or more digits: 0.123, 12.3, 12,345."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 3}f}"
