"""sweep.html: the results of a sweep on one page, in one file that opens anywhere."""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2

from vitexp.runs.gallery import data_uri
from vitexp.sweeps.engines.trial import repetition
from vitexp.sweeps.tables.cells import cells, format_metric, headings, notes, one_line
from vitexp.sweeps.tables.results import STATUSES, Outcome
from vitexp.sweeps.tables.table import Row, Table
from vitexp.system.disk import typed, write_atomically


def write_page(table: Table, folder: Path, *, overrides: Mapping[str, Sequence[str]], command: str) -> Path:
    """Write `folder`/sweep.html, which embeds its figure and loads no other file; return its path.

    overrides: the overrides of each row, by row name. command: the command line that repeats the sweep.
    """
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))
    counts = [(status, sum(row.count(status) for row in table.rows)) for status in STATUSES]
    page = template.render(
        title=one_line(table.title),
        counts=[(status, number) for status, number in counts if number],
        planned=len(table.outcomes),
        headings=[heading.replace("-\n", "") for heading in headings(table)],
        rows=[_row(table, row, folder, overrides.get(row.name, ())) for row in table.rows],
        notes=notes(table),
        figures=_figures(table),
        failures=[_failure(trial) for trial in table.outcomes if trial.status in ("failed", "interrupted")],
        command=command,
    )
    write_atomically(folder / "sweep.html", page)
    return folder / "sweep.html"


def _row(table: Table, row: Row, folder: Path, overrides: Sequence[str]) -> dict[str, Any]:
    return {
        "cells": cells(table, row),
        "is_best": row.is_best,
        "overrides": shlex.join(overrides),
        "trials": [_trial(table, trial, folder) for trial in row.outcomes],
    }


def _trial(table: Table, trial: Outcome, folder: Path) -> dict[str, Any]:
    """Return the value of a trial, or its status, and the link to its report."""
    number = trial.number("metrics", table.compared, table.key) if trial.status == "completed" else None
    report = trial.folder / "report.html"
    return {
        "repetition": repetition(trial.seed, trial.fold),
        "status": trial.status,
        "value": trial.status if number is None else format_metric(table, number),
        "report": quote(Path(os.path.relpath(report, folder)).as_posix()) if report.is_file() else None,
    }


def _failure(trial: Outcome) -> dict[str, Any]:
    lines = str(trial.get("error") or "").strip().splitlines()
    return {
        "row": one_line(trial.row),
        "repetition": repetition(trial.seed, trial.fold),
        "status": trial.status,
        "error": one_line(lines[-1]) if lines else "",
        "folder": typed(trial.folder),
    }


def _figures(table: Table) -> list[tuple[str, str]]:
    """Return the figures as data URIs, each with its description; none if there is nothing to draw yet."""
    if not table.has_values:
        return []
    from vitexp.sweeps.tables.figure import draw, draw_curves  # matplotlib

    means, curves = io.BytesIO(), io.BytesIO()
    draw(table, means)
    drawn = [(f"Mean and {table.repetitions} of every row, and its difference from the baseline", means)]
    drawn += [("Loss and accuracy of the trials during training", curves)] * draw_curves(table, curves)
    return [(about, data_uri(file.getvalue())) for about, file in drawn]
