"""Format numbers, durations and tables for people."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

_LEAST = 9  # characters to which a cell of a table may be shortened


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


def percent(share: float) -> str:
    """Return a probability with two decimals: "97.63%", "0.03%", "<0.01%"."""
    return "<0.01%" if 0 < share < 0.00005 else f"{share:.2%}"


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


def file_size(size: int) -> str:
    """Return a number of bytes with three digits: "119 MB", "4.71 GB"."""
    value, unit = size / 1e3, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1e3, larger
    return f"{value:.{0 if value >= 99.95 or unit == 'kB' else 1 if value >= 9.995 else 2}f} {unit}"


def cut(text: str, width: int) -> str:
    """Return `text`, shortened in the middle to `width` characters."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def plain_table(
    heading: Sequence[str],
    rows: Sequence[Sequence[str]],
    align: Sequence[Literal["left", "right"]],
    *,
    width: int | None = None,
    shrink: Sequence[int] = (),
) -> str:
    """Return a table of aligned columns. A row with fewer cells than the heading ends with one cell of any length.

    width: the columns of the terminal; None: nothing is shortened. shrink: the columns whose cells may be shortened in
    the middle to fit, in this order, to nine characters.
    """
    widths = [
        max(len(row[column]) for row in (heading, *rows) if len(row) == len(heading) or column < len(row) - 1)
        for column in range(len(heading))
    ]
    for column in shrink:
        excess = 0 if width is None else sum(widths) + 2 * (len(widths) - 1) - width
        widths[column] = max(widths[column] - max(excess, 0), min(widths[column], _LEAST))
    lines = []
    for row in (heading, *rows):
        cells = [cut(cell, room) if width else cell for cell, room in zip(row, widths, strict=False)]
        if len(row) < len(heading):
            taken = sum(widths[: len(row) - 1]) + 2 * (len(row) - 1)
            cells[-1] = row[-1] if width is None else cut(row[-1], max(width - taken, _LEAST))
        padded = [
            cell.rjust(room) if side == "right" and len(row) == len(heading) else cell.ljust(room)
            for cell, room, side in zip(cells, widths, align, strict=False)
        ]
        lines.append("  ".join(padded).rstrip())
    return "".join(f"{line}\n" for line in lines)


def markdown_table(
    heading: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[Literal["left", "right"]]
) -> str:
    """Return a Markdown table of plain text, ending with a line break."""
    rule = ["---" if side == "left" else "---:" for side in align]
    lines = [[*map(markdown, heading)], rule, *([*map(markdown, row)] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
