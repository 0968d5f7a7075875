"""Numbers and tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal


def format_value(value: float) -> str:
    """Return `value` with three or more digits: 0.123, 12.3, 12,345."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 3}f}"


def markdown_table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[Literal["left", "right"]]
) -> str:
    """Return a Markdown table of formatted cells, with a line break at its end."""
    rule = ["---" if side == "left" else "---:" for side in align]
    lines = [heading, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
