"""The table in the terminal, in Markdown, as CSV and in LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich import table as rich_table
from rich.cells import cell_len
from rich.text import Text

from vitexp.sweeps.tables.cells import BEST, SPLITS, cells, headings, notes, one_line
from vitexp.sweeps.tables.results import STATUSES
from vitexp.sweeps.tables.table import Row, Table
from vitexp.text import markdown, markdown_table

# Characters that are special in LaTeX, and characters of the table that pdflatex lacks.
_LATEX: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedblright{}",
        **{letter: f"\\{letter}" for letter in "{}$&#%_"},
        # LaTeX would read these as arguments of a preceding line break (two backslashes).
        **{letter: f"{{{letter}}}" for letter in "[]*"},
        "–": "--",
        "±": r"$\pm$",
        "−": "$-$",
        "×": r"$\times$",
        "Δ": r"$\Delta$",
        "α": r"$\alpha$",
        "β": r"$\beta$",
        "λ": r"$\lambda$",
        BEST: r"$\star$",
    }
)

_WIDE: Final = 130  # columns of a terminal with room for every cell on one line
_WIDE_WITH_FOLDS: Final = 170  # with intervals of means, and the ensemble
_NARROWEST: Final = 10  # columns for the names of rows
_NUMBER: Final = r"[+-]?\d[\d,]*(?:\.\d+)?(?:[eE][+-]?\d+)?"


def to_rich(table: Table, *, width: int) -> rich_table.Table:
    """Return the table with its notes below, for a terminal of `width` columns.

    Below 130 columns (170 with folds), deviations and intervals are on separate lines, and as many of the last three
    columns are omitted as necessary, at least one. Names of rows get the remaining space.
    """
    compact = width < (_WIDE if table.folds is None else _WIDE_WITH_FOLDS)
    heads, rows = headings(table), [cells(table, row) for row in table.rows]
    if compact:
        rows = [
            [name, seeds.replace(", ", ",\n"), *(re.sub(r" (?=[±\[(])", "\n", number) for number in numbers)]
            for name, seeds, *numbers in rows
        ]
    padding, kept = (0, len(heads) - 1) if compact else (1, len(heads))
    columns = zip(heads, *rows, strict=True)
    taken = [padding + 1 + max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    while compact and kept > len(heads) - 3 and width - sum(taken[1:kept]) < _NARROWEST:
        kept -= 1
    room = max(width - padding - sum(taken[1:kept]), _NARROWEST)
    printed = rich_table.Table(
        title=Text(one_line(table.title), style="bold"),
        title_justify="left",
        caption=Text("\n".join(note for note in notes(table) if not compact or "Time per" not in note)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, padding, 0, 0),
        show_edge=False,
    )
    for place, heading in enumerate(heads[:kept]):
        printed.add_column(Text(heading), justify="left" if place < 2 else "right", no_wrap=True)
    for row, (name, *others) in zip(table.rows, rows, strict=True):
        shown = ("\n".join(_wrapped(name, room)), *others[: kept - 1])
        printed.add_row(*map(Text, shown), style="bold" if row.is_best else None)
    return printed


def _wrapped(name: str, width: int) -> list[str]:
    """Return the lines of the name of a row, broken after spaces and signs where possible and never in a number."""
    lines = [""]
    for part in re.split(r"(?<=[\s=/_])|(?<=[.,])(?!\d)", name):
        pieces = [part] if cell_len(part.rstrip()) <= width else re.findall(rf"{_NUMBER}|.", part)
        for piece in pieces:
            if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
                lines.append("")
            lines[-1] += piece
    return [line.rstrip() for line in lines]


def to_markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, followed by its notes as a list."""
    heads = [heading.replace("-\n", "").replace("\n", " ") for heading in headings(table)]
    rows = [cells(table, row) for row in table.rows]
    listed = "".join(f"- {markdown(note)}\n" for note in notes(table))
    return (
        markdown_table(heads, rows, ["left" if column < 2 else "right" for column in range(len(heads))]) + f"\n{listed}"
    )


def to_csv(table: Table) -> str:
    """Return all numbers at full precision in the units of result.json (fractions, seconds); missing ones are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(records(table))
    return file.getvalue()


COLUMNS: Final = (
    *("row", "is_baseline", "is_best", "planned", *STATUSES, "metric"),
    *("val_mean", "val_sd", "val_n", "test_mean", "test_sd", "test_n"),
    *("compared", "difference", "difference_low", "difference_high", "difference_n", "p", "p_holm", "is_significant"),
    *("step", "step_low", "step_high", "step_n"),
    *("parameters", "train_s", "extra_s_per_0.01"),
    *("folds", "val_low", "val_high", "test_low", "test_high", "ensemble", "ensemble_n"),
)


def records(table: Table) -> list[list[str | float | bool | None]]:
    """Return one record per row, with an entry for each of COLUMNS."""
    return [_record(table, row) for row in table.rows]


def _record(table: Table, row: Row) -> list[str | float | bool | None]:
    difference = row.difference
    return [
        *(row.name, row.is_baseline, row.is_best, len(row.outcomes), *map(row.count, STATUSES), table.key),
        *(entry for split in SPLITS for entry in _summary(row, split)),
        table.compared,
        *((difference.mean, difference.low, difference.high, difference.n, difference.p) if difference else [None] * 5),
        *(row.p_holm, row.is_significant),
        *((row.step.mean, row.step.low, row.step.high, row.step.n) if row.step else [None] * 4),
        *(row.parameters, row.train_s, row.cost_s, table.folds),
        *(end for part in (row.val, row.test) for end in ((part.low, part.high) if part else (None, None))),
        *((row.ensemble.mean, row.ensemble.n) if row.ensemble else (None, None)),
    ]


def _summary(row: Row, split: str) -> Sequence[float | None]:
    summary = row.summary(split)
    return (summary.mean, summary.sd, summary.n) if summary else (None, None, 0)


def to_latex(table: Table) -> str:
    """Return a table environment with the rules of booktabs, at most as wide as the line; the notes are its caption."""
    head = headings(table)
    lines = [
        r"% \usepackage{booktabs,graphicx} in the preamble; scripts other than Latin need lualatex or xelatex",
        r"\begin{table}",
        rf"\caption{{{_latex(table.title)}. {_latex(' '.join(notes(table)))}}}\medskip",
        r"\centering\footnotesize",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{ll{'r' * (len(head) - 2)}}}",
        r"\toprule",
        _latex_row(_latex_heading(heading) for heading in head),
        r"\midrule",
        *(_latex_row(map(_latex, cells(table, row))) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_heading(heading: str) -> str:
    lines = r" \\ ".join(map(_latex, heading.splitlines()))
    return rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{lines}\end{{tabular}}"


def _latex_row(entries: Iterable[str]) -> str:
    return " & ".join(entries) + r" \\"


def _latex(text: str) -> str:
    return one_line(text).translate(_LATEX)
