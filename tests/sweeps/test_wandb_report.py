"""What a sweep saves in W&B at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.sweeps.test_sweep_page import odd_table
from tests.wandb_server import wandb_server
from vitexp.sweeps import sweep
from vitexp.sweeps.grid import Plan
from vitexp.training.background_wandb import _forget_service

WANDB = {"project": "p", "entity": None, "mode": "auto"}


def told(folder: Path, **options: Any) -> str:
    console = Console(record=True, width=200, no_color=True)
    planned = Plan(folder=folder, rows=[], trials=[], wandb=WANDB, is_cumulative=False)
    sweep._tell_wandb(odd_table(), planned, console, **options)
    return console.export_text()


def test_a_failure_of_wandb_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> str:
        raise ConnectionResetError("no service")

    monkeypatch.setattr(sweep, "log_to_wandb", fail)
    assert f"W&B failed (no service); all results are in {tmp_path}" in told(tmp_path, with_report=True)


def test_offline_there_is_no_report(tmp_path: Path) -> None:
    text = told(tmp_path, with_report=True, with_table=False)
    assert text == "report    not saved, because W&B is offline; once online: show=true report=true\n"


def test_report_and_workspace_show_the_table_and_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces")
    with wandb_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        _forget_service()
        text = told(tmp_path / "recipe", with_report=True, with_table=False)
        _forget_service()
    report, workspace = (json.loads(view["spec"]) for view in server.views)
    assert [view["displayName"] for view in server.views] == ["recipe", "recipe"]
    assert text.splitlines() == [f"report    {server.url}/someone/p{end}" for end in ends(server.views)]
    table, *_ = (block["content"] for block in report["blocks"] if block["type"] == "markdown-block")
    assert "| baseline | 3 of 3 | 91.50 ± 0.50 | 90.50 ± 0.50 |" in table
    grids = [block["metadata"] for block in report["blocks"] if block["type"] == "panel-grid"]
    assert [grid["runSets"][0]["grouping"] for grid in grids] == [[ROW], [ROW]]
    [section] = workspace["section"]["panelBankConfig"]["sections"]
    assert len(section["panels"]) == 5
    assert "summary:best/epoch" in workspace["section"]["runSets"][0]["runFeed"]["columnPinned"]


ROW = {"section": "config", "name": "logger.value.wandb.row"}


def ends(views: list[dict[str, Any]]) -> list[str]:
    return ["/reports/recipe--view1", f"?nw={views[1]['name'].split('-')[1]}"]
