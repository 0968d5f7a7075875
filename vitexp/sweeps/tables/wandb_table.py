"""The table in Weights & Biases: a run of its own, in the group of the sweep's trials."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vitexp.sweeps.tables.figure import draw
from vitexp.sweeps.tables.formats import COLUMNS, records
from vitexp.sweeps.tables.table import Table
from vitexp.system.wandb_mode import resolve_wandb_mode


def log_to_wandb(
    table: Table, folder: Path, *, project: str, group: str, entity: str | None = None, mode: str = "auto"
) -> str:
    """Log the table as wandb.Table and the figure, with the run's files in `folder`; one line on where they are.

    mode: "online", "offline", or "auto": online where there is a login.
    """
    import wandb

    resolved = resolve_wandb_mode(mode)
    run = wandb.init(
        project=project,
        entity=entity,
        group=group,
        name=f"{group}/table",
        job_type="table",
        dir=folder,
        mode=resolved,
        reinit="create_new",  # whatever else is open in this process stays open
        settings=wandb.Settings(silent=True, console="off"),
    )
    try:
        logged: dict[str, object] = {"table": wandb.Table(columns=list(COLUMNS), data=records(table))}
        with tempfile.TemporaryDirectory() as scratch:
            if any(row.summary(table.compared) for row in table.rows):
                picture = Path(scratch, "figure.png")
                draw(table, picture)
                logged["figure"] = wandb.Image(str(picture))
            run.log(logged)
    finally:
        run.finish()
    return f"offline; wandb sync {Path(run.dir).parent} uploads it" if resolved == "offline" else str(run.url)
