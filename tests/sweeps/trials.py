"""Records of trials, and tables of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitexp.sweeps.tables.results import Outcome
from vitexp.sweeps.tables.table import Table, build_table

# A name with special characters of LaTeX, Markdown, HTML, rich and terminals.
ODD = '\\all_{50%} & <b>"$x^2$"</b> | #1 ~ *[bold]* `c` - ! é α\n\x1b[31m'
ODD_SEEN = '\\all_{50%} & <b>"$x^2$"</b> | #1 ~ *[bold]* `c` - ! é α [31m'


def record(
    test: float | None,
    *,
    val: float | None = None,
    status: str = "completed",
    error: str | None = None,
    fit_s: float | None = 100.0,
    device: str = "NVIDIA H200",
    **metrics: float,
) -> dict[str, Any]:
    """Return a result.json; `metrics` are further metrics, the same on test and validation."""
    splits = {"test": test, "val": val}
    return {
        "schema": 1,
        "run_id": "20300102-030405-abc123",
        "status": status,
        "error": error,
        "name": "signs-vit_tiny",
        "overrides": ["model=vit_tiny"],
        "config_hash": "0123456789ab",
        "seed": 0,
        "data": {"name": "signs", "train": 900, "val": 100, "test": 400, "classes": 43},
        "model": {"name": "vit_tiny", "parameters": 2692587, "flops_per_image": 352321536},
        "metrics": {
            split: {"accuracy": accuracy, **metrics} for split, accuracy in splits.items() if accuracy is not None
        },
        "epochs": 8,
        "steps": 120,
        "images_seen": 7200,
        "timing": {"total_s": 120.0, "fit_s": fit_s, "train_images_per_s": 9000.0, "time_to_first_step_s": 8.0},
        "environment": {"git_commit": "0123456789abcdef", "git_dirty": False, "device": device, "device_count": 1},
        "started_at": "2030-01-02T03:04:05+00:00",
        "finished_at": "2030-01-02T03:06:05+00:00",
    }


def outcomes(
    rows: Mapping[str, list[dict[str, Any] | None]], folder: Path = Path("trials"), *, folds: int | None = None
) -> list[Outcome]:
    """Return one outcome per record of a row; the seed is its position, and None is a missing trial.

    folds: the position counts the folds of seed 0, then those of seed 1, and so on.
    """
    return [
        Outcome(
            row=row,
            seed=place if folds is None else place // folds,
            fold=None if folds is None else place % folds,
            folder=folder / f"{row_index}-{place}",
            status=result["status"] if result else "missing",
            result=result,
        )
        for row_index, (row, results) in enumerate(rows.items())
        for place, result in enumerate(results)
    ]


def table(rows: Mapping[str, list[dict[str, Any] | None]], **options: Any) -> Table:
    return build_table(outcomes(rows, folds=options.get("folds")), **{"title": "ablation recipe", **options})


def odd_table() -> Table:
    """Return a table with every kind of row: significant, worse, one seed, failed, running, missing, name to escape."""
    return table(
        {
            "baseline": [record(0.900, val=0.91), record(0.905, val=0.915), record(0.910, val=0.92)],
            ODD: [
                record(0.9501, val=0.96, fit_s=110.0),
                record(0.9549, val=0.965, fit_s=110.0),
                record(0.9600, val=0.97, fit_s=110.0),
            ],
            "worse": [
                record(0.85, val=0.86),
                record(0.86, val=0.87),
                record(None, status="failed", fit_s=None, error="Traceback\n  ...\nMemoryError: no <room>\n"),
            ],
            "late": [record(0.93, val=0.94), record(None, status="running", fit_s=None), None],
        }
    )
