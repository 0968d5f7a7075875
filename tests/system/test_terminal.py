"""Text of users is printed as it is."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

import vitexp
from vitexp.evaluate.tables import Table
from vitexp.system.terminal import logging_to, plain_console

ODD = "cat[red] [unknown] :smile: [/bold]"


def test_names_that_look_like_markup_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    console = plain_console()
    console.width = 200
    console.print(ODD)
    console.print(Table(f"title {ODD}", ["heading [x]"], [[f"cell {ODD}"]]).rich())
    with logging_to(None, console):
        logging.getLogger("vitexp").info("logged %s", ODD)
    printed = capsys.readouterr().out
    assert printed.count(ODD) == 4
    assert "heading [x]" in printed


def test_no_console_reads_markup() -> None:
    """Only quiet consoles and plain_console itself create a rich Console; columns of progress bars say markup=False."""
    for path in Path(str(vitexp.__file__)).parent.rglob("*.py"):
        text = path.read_text()
        if path.name != "terminal.py":
            assert not re.findall(r"\bConsole\((?!quiet=True)", text), path
        assert all("markup=False" in found for found in re.findall(r"TextColumn\(.*?\)", text)), path
