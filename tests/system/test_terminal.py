"""Text of users is printed as it is."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import vitexp
from vitexp.evaluate.tables import Table
from vitexp.system import terminal
from vitexp.system.terminal import logging_to, plain_console, say_loading, say_starting

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


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_said_while_a_command_starts(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said() -> list[str]:
        say_starting()
        say_loading()
        return capsys.readouterr().out.splitlines()

    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setattr(terminal, "sys", SimpleNamespace(stdout=sys.stdout, modules={}))
    assert said() == ["reading the configuration ..."] * is_terminal + ["loading torch ..."]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert said() == [], "another process of a distributed run"
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(terminal, "sys", SimpleNamespace(stdout=sys.stdout, modules={"torch": None}))
    assert "loading torch ..." not in said()
