"""A report and a workspace in Weights & Biases: the table of a sweep, and the curves of its trials by row."""

from __future__ import annotations

from typing import Any

from vitexp.sweeps.tables.formats import to_markdown
from vitexp.sweeps.tables.table import Table

_ROW = "logger.wandb.row"  # in the configuration of a trial


def save_report(table: Table, *, project: str, group: str, entity: str | None = None) -> list[str]:
    """Save the report and the workspace; return their addresses. group: of the trials in W&B.

    Repeated, it saves others: W&B identifies neither by its title. Raises what wandb raises without a login or network.
    """
    import wandb

    wandb.setup(wandb.Settings(silent=True))
    entity = entity or str(wandb.Api().default_entity)
    documents = [report(table, project=project, group=group, entity=entity)]
    documents.append(workspace(table, project=project, group=group, entity=entity))
    return [str(each.save().url) for each in documents]


def report(table: Table, *, project: str, group: str, entity: str) -> Any:
    """Return the wandb_workspaces.reports.v2.Report."""
    import wandb_workspaces.expr as expr
    import wandb_workspaces.reports.v2 as wr

    runs = wr.Runset(
        entity=entity,
        project=project,
        name=group,
        filters=[expr.Metric("Group") == group, expr.Metric("JobType") != "table"],
        groupby=[f"config.{_ROW}"],
    )
    pictures = wr.MediaBrowser(media_keys=["figures/confusion_matrix", "figures/curves"])
    blocks = [
        wr.MarkdownBlock(to_markdown(table)),
        wr.H2("Training"),
        wr.P(f"Each curve is the mean of a row over its {table.repetitions}."),
        wr.PanelGrid(runsets=[runs], panels=_panels(table)),
        wr.H2("Figures"),
        wr.PanelGrid(runsets=[runs], panels=[pictures]),
    ]
    return wr.Report(entity=entity, project=project, title=group[:128], blocks=blocks, width="fixed")


def workspace(table: Table, *, project: str, group: str, entity: str) -> Any:
    """Return the wandb_workspaces.workspaces.Workspace."""
    import wandb_workspaces.workspaces as ws

    columns = ["run:displayName", *(f"summary:{name}" for name in ("best/epoch", *_summaries(table)))]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=group,
        sections=[ws.Section(name=group, panels=_panels(table), is_open=True)],
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == group, ws.Metric("JobType") != "table"],
            groupby=[ws.Config(_ROW)],
            pinned_columns=columns,
        ),
    )


def _summaries(table: Table) -> list[str]:
    return [f"{table.compared}/{table.key}", "model/parameters", "model/flops_per_image", "train/images_per_s"]


def _panels(table: Table) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    compared, parameters, *_ = _summaries(table)
    if table.compared == "val":  # its summary has several values
        compared += ".last"
    curves = [
        wr.LinePlot(title=name, x="epoch", y=[name], groupby=wr.Config(_ROW), groupby_aggfunc="mean")
        for name in ("val/accuracy", "val/loss", "train/loss_epoch")
    ]
    bars = wr.BarPlot(
        title=compared,
        metrics=[wr.SummaryMetric(compared)],
        groupby=wr.Config(_ROW),
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
    )
    size = wr.ScatterPlot(title="size", x=wr.SummaryMetric(parameters), y=wr.SummaryMetric(compared), log_x=True)
    return [*curves, bars, size]
