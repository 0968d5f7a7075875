"""A table for the terminal, for Markdown, for a spreadsheet and for a paper."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich import table as rich_table
from rich.text import Text

from vitexp.sweeps.tables.cells import BEST, SPLITS, cells, headings, notes, one_line
from vitexp.sweeps.tables.results import STATUSES
from vitexp.sweeps.tables.table import Row, Table

# Letters that LaTeX obeys, and letters of the table's own that pdflatex has no glyph for.
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
        # After a line break these would belong to it.
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


def to_rich(table: Table, *, compact: bool = False) -> rich_table.Table:
    """With the notes below it.

    compact: for less than 130 columns. Deviations and intervals stand on lines of their own, and the last column is
    left to the other formats.
    """
    kept = slice(None, -1 if compact else None)
    made = rich_table.Table(
        title=Text(one_line(table.title), style="bold"),
        title_justify="left",
        caption=Text("\n".join(note for note in notes(table) if not compact or "Time per" not in note)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0 if compact else (0, 1, 0, 0),
        show_edge=False,
    )
    name, *others = headings(table)[kept]
    longest_word = max((len(word) for row in table.rows for word in one_line(row.name).split()), default=0)
    made.add_column(name, overflow="fold", min_width=min(longest_word, 14))
    for heading in others:
        made.add_column(Text(heading), justify="left" if heading == "seeds" else "right", no_wrap=True)
    for row in table.rows:
        name, seeds, *numbers = cells(table, row)[kept]
        if compact:
            seeds, numbers = seeds.replace(", ", ",\n"), [re.sub(r" (?=[±\[(])", "\n", number) for number in numbers]
        made.add_row(Text(name), *map(Text, (seeds, *numbers)), style="bold" if row.is_best else None)
    return made


def to_markdown(table: Table) -> str:
    """A table as GitHub reads it, and its notes as a list."""
    head = [heading.replace("-\n", "").replace("\n", " ") for heading in headings(table)]
    lines = [
        _markdown_row(head),
        "|" + "|".join(["---", "---", *["---:"] * (len(head) - 2)]) + "|",
        *(_markdown_row(cells(table, row)) for row in table.rows),
        "",
        *(f"- {_markdown(note)}" for note in notes(table)),
    ]
    return "\n".join(lines) + "\n"


def _markdown_row(texts: Iterable[str]) -> str:
    return "| " + " | ".join(map(_markdown, texts)) + " |"


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>&|~$!])", r"\\\1", text)


def to_csv(table: Table) -> str:
    """All numbers in full, in the units of result.json (fractions, seconds); what there is not is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(records(table))
    return file.getvalue()


COLUMNS: Final = (
    *("row", "is_baseline", "is_best", "planned", *STATUSES, "metric"),
    *("val_mean", "val_sd", "val_n", "test_mean", "test_sd", "test_n"),
    *("compared", "difference", "difference_low", "difference_high", "difference_n", "p", "p_holm", "is_significant"),
    *("parameters", "train_s", "extra_s_per_0.01"),
)


def records(table: Table) -> list[list[str | float | bool | None]]:
    """One a row, an entry for each of COLUMNS."""
    return [_record(table, row) for row in table.rows]


def _record(table: Table, row: Row) -> list[str | float | bool | None]:
    difference = row.difference
    return [
        *(row.name, row.is_baseline, row.is_best, len(row.outcomes), *map(row.count, STATUSES), table.metric.key),
        *(entry for split in SPLITS for entry in _summary(row, split)),
        table.compared,
        *((difference.mean, difference.low, difference.high, difference.n, difference.p) if difference else [None] * 5),
        *(row.p_holm, row.is_significant),
        *(row.parameters, row.train_s, row.cost_s),
    ]


def _summary(row: Row, split: str) -> Sequence[float | None]:
    summary = row.summary(split)
    return (summary.mean, summary.sd, summary.n) if summary else (None, None, 0)


def to_latex(table: Table) -> str:
    """A float with rules as the package booktabs draws them, no wider than the line; the notes are its caption."""
    head = headings(table)
    lines = [
        r"% \usepackage{booktabs,graphicx} in the preamble; letters that are not Latin need lualatex or xelatex",
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
