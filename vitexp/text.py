"""Format numbers, durations and tables for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal


def format_value(value: float) -> str:
    """Return `value` with three or more digits: 0.123, 12.3, 12,345."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 3}f}"


def plural(count: int, noun: str) -> str:
    """Return "1 epoch", "2 epochs", "1,000 steps"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shortened(names: Sequence[str], *, most: int = 5) -> str:
    """Return "a, b and c", or "a, b, c, d, e and 12 more"."""
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most:,} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def duration(seconds: float) -> str:
    """Return "4.2 s", "3 min 05 s" or "2 h 07 min"."""
    if seconds < 59.95:  # otherwise "60.0 s"
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def large_number(value: float) -> str:
    """Return a count with three digits: "2.68 million"."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.3g} {word}"
    return f"{value:,.0f}"


def markdown(text: str) -> str:
    """Return `text` so that GitHub's Markdown shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>&~$!|])", r"\\\1", text)


def markdown_table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[Literal["left", "right"]]
) -> str:
    """Return a Markdown table of plain text, ending with a line break."""
    rule = ["---" if side == "left" else "---:" for side in align]
    lines = [[*map(markdown, heading)], rule, *([*map(markdown, row)] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
