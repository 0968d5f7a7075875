"""The table in Weights & Biases: a separate run, in the group of the sweep's trials."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vitexp.sweeps.tables.formats import COLUMNS, records
from vitexp.sweeps.tables.table import Table
from vitexp.system.wandb_mode import resolve_wandb_mode


def log_to_wandb(
    table: Table, folder: Path, *, project: str, group: str, entity: str | None = None, mode: str = "auto"
) -> str:
    """Log the table as wandb.Table, and the figure; return where they are. The files of the run are in `folder`.

    mode: "online", "offline", or "auto": online if there is a login.
    """
    import wandb

    from vitexp.sweeps.tables.figure import draw  # matplotlib

    resolved = resolve_wandb_mode(mode)
    run = wandb.init(
        project=project,
        entity=entity,
        group=group,
        name=f"{group}/table",
        job_type="table",
        dir=folder,
        mode=resolved,
        reinit="create_new",  # does not end other runs that are open in this process
        settings=wandb.Settings(silent=True, console="off"),
    )
    try:
        logged: dict[str, object] = {"table": wandb.Table(columns=list(COLUMNS), data=records(table))}
        with tempfile.TemporaryDirectory() as scratch:
            if table.has_values:
                path = Path(scratch, "figure.png")
                draw(table, path)
                logged["figure"] = wandb.Image(str(path))
            run.log(logged)
    finally:
        run.finish()
    return f"offline; wandb sync {Path(run.dir).parent} uploads it" if resolved == "offline" else str(run.url)
