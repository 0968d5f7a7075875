"""Several runs next to each other: their learning curves, a table, and all their numbers in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitexp.explain.figures.curves import Curve
from vitexp.metrics import METRICS
from vitexp.runs.record import read_result
from vitexp.text import duration, large_number, plural
from vitexp.training.metrics_file import rows_before

_EPOCH_METRICS = {"train/loss_epoch": "train/loss"}  # the epoch's mean; train/loss_step is of single steps
_COMPARED = ("accuracy", "f1_macro", "loss")


def history(folder: Path) -> dict[str, Curve]:
    """Return what metrics.csv of a run says about each epoch: (epochs, counted from 1, and values) by metric.

    Empty without a metrics.csv, which logger=wandb alone does not write.
    """
    found: dict[str, dict[float, float]] = {}
    for row in rows_before(folder / "metrics.csv"):
        for name, value in row.items():
            kind = _EPOCH_METRICS.get(name, name)
            if "epoch" in row and kind.startswith(("train/", "val/")) and name != "train/loss_step":
                found.setdefault(kind, {})[row["epoch"] + 1] = value
    return {name: (list(values), list(values.values())) for name, values in found.items()}


def effort(folder: Path) -> str:
    """Return how long a completed run was trained: "3 epochs, 19 min 49 s"."""
    record = read_result(folder)
    return f"{plural(record['epochs'], 'epoch')}, {duration(record['timing']['fit_s'])}"


def compare(runs: Mapping[str, Path]) -> tuple[list[dict[str, str]], str]:
    """Return a table of completed runs, one row each, and, as JSON, their records and histories. runs: by name."""
    records = {name: read_result(folder) for name, folder in runs.items()}
    rows = [{"model": name, **_cells(record)} for name, record in records.items()]
    everything = [
        {"name": name, "folder": str(runs[name]), "result": record, "history": history(runs[name])}
        for name, record in records.items()
    ]
    return rows, json.dumps(everything, indent=1)


def _cells(record: Mapping[str, Any]) -> dict[str, str]:
    model, timing, test = record["model"], record["timing"], record["metrics"]["test"]
    return {
        "parameters": large_number(model["parameters"]),
        "FLOPs per image": large_number(model["flops_per_image"]),
        **{f"test {METRICS[key].label}": METRICS[key].format(test.get(key)) for key in _COMPARED},
        "training": duration(timing["fit_s"]),
    }
