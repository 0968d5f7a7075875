"""The table in Weights & Biases: a run of its own, in the group of the sweep's trials."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from vitexp.sweeps.figure import draw
from vitexp.sweeps.formats import COLUMNS, records
from vitexp.sweeps.table import Table


def log_to_wandb(
    table: Table, folder: Path, *, project: str, group: str, entity: str | None = None, mode: str = "auto"
) -> str:
    """Log the table as wandb.Table and the figure, with the run's files in `folder`; one line on where they are.

    mode: "online", "offline", or "auto": online where there is a login.
    """
    import wandb

    offline = mode == "offline" or (mode == "auto" and not _logged_in())
    run = wandb.init(
        project=project,
        entity=entity,
        group=group,
        name=f"{group}/table",
        job_type="table",
        dir=folder,
        mode="offline" if offline else "online",
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
    return f"offline; wandb sync {Path(run.dir).parent} uploads it" if offline else str(run.url)


def _logged_in() -> bool:
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    return bool(wandb.login(prompt=False))
