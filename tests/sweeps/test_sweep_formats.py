from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from tests.sweeps.trials import ODD, ODD_SEEN, odd_table, record, table
from vitexp.sweeps.tables.cells import cells
from vitexp.sweeps.tables.formats import to_csv, to_latex, to_markdown, to_rich
from vitexp.sweeps.tables.table import Table


def printed(width: int, made: Table | None = None) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(to_rich(made or odd_table(), width=width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_every_cell_as_it_is() -> None:
    made, lines = odd_table(), printed(220).splitlines()
    for row in made.rows:
        line = next(line for line in lines if line.startswith(cells(made, row)[0]))
        assert all(text in line for text in cells(made, row))
    assert ODD_SEEN in printed(220)


def test_a_terminal_of_80_columns_cuts_no_number() -> None:
    made, text = odd_table(), printed(80)
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    for row in made.rows:
        for part in re.split(r" (?=[±\[(])|, (?=\d )", "; ".join(cells(made, row)[1:-1])):
            assert all(word in text for word in part.split("; "))


@pytest.mark.parametrize("width", [60, 80, 110, 129, 130, 160])
@pytest.mark.parametrize("is_cumulative", [False, True])
def test_no_number_in_the_name_of_a_row_is_broken(width: int, is_cumulative: bool) -> None:
    names = [
        *("optim.lr=0.0003", "optim.lr=3e-05", "optim.weight_decay=0.0001, training.mixup_alpha=0.25"),
        *("training.image_sizes=[24,32,40]", "data.root=/a/very/long/path/to/images_of_1,234,567_animals_without_end"),
        *("x" * 90, "0123456789abcdef" * 5 + "/0.125"),
    ]
    rows = {name: [record(0.1 * seed + 0.01 * place) for seed in range(3)] for place, name in enumerate(names)}
    text = printed(width, table(rows, is_cumulative=is_cumulative))
    lines = text.split("\n\n")[0].splitlines()
    first = [line.split()[0] for line in lines if line.strip()]
    numbers = ["0.0003", "3e-05", "0.0001", "0.25", "[24,32,40]", "0.125"]
    for number in numbers:
        assert any(number in line for line in lines), number
    assert any("1,234,567" in word for word in first), first
    assert "…" not in text
    if width >= 80 or not is_cumulative:
        assert max(map(len, text.splitlines())) <= width


class Cells(HTMLParser):
    """The text of every table cell, and all tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def test_markdown_renders_to_the_same_cells() -> None:
    made = odd_table()
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(to_markdown(made))
    page = Cells(html)
    assert page.rows[1:] == [cells(made, row) for row in made.rows]
    assert page.rows[0][2:4] == ["validation accuracy (%)", "test accuracy (%)"]
    assert page.tags == {"table", "thead", "tbody", "tr", "th", "td", "ul", "li"}


def test_csv_keeps_names_and_numbers_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(odd_table()))))
    assert [row["row"] for row in rows] == ["baseline", ODD, "worse", "late"]
    base, best, worse, late = rows
    assert float(best["test_mean"]) == pytest.approx((0.9501 + 0.9549 + 0.9600) / 3, rel=1e-15)
    assert float(best["difference"]) == pytest.approx(0.05)
    assert (best["is_best"], best["is_significant"], base["is_baseline"]) == ("True", "True", "True")
    assert float(best["extra_s_per_0.01"]) == pytest.approx(2.0)
    assert (worse["completed"], worse["failed"], worse["planned"]) == ("2", "1", "3")
    assert (late["running"], late["missing"], late["test_sd"], late["p"], late["val_n"]) == ("1", "1", "", "", "1")
    assert (base["difference"], base["p_holm"]) == ("", "")


def test_latex_escapes_and_balances() -> None:
    text = to_latex(odd_table())
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines()[1:] if line]
    assert r"validation \\ accuracy" in text and r"test \\ accuracy" in text
    assert len(rows) == 4 and all(row.endswith(r" \\") for row in rows)
    assert all(len(re.findall(r"(?<!\\)&", row)) == 7 for row in rows)
    assert not re.search(r"(?<!\\)[#_~^%<>|\"]", rows[1])
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert not set("\x1b–−±★Δα") & set(text)


@pytest.mark.parametrize("name", ["[2ex] wide", "* star"])
def test_latex_takes_no_name_for_an_argument_of_the_line_before(name: str) -> None:
    lines = to_latex(table({"base": [record(0.9)], name: [record(0.9)]})).splitlines()
    row = lines[lines.index(r"\bottomrule") - 1]
    assert row.startswith("{") and name[2:] in row.replace("{]}", "]")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(tmp_path: Path) -> None:
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "paper.tex").write_text(f"{head}\n{to_latex(odd_table())}\n\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and (tmp_path / "paper.pdf").exists()
