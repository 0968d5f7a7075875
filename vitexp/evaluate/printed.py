"""The evaluation as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from vitexp.evaluate.latency import Latency
from vitexp.evaluate.per_class import Confusion, percent, points
from vitexp.metrics import METRICS
from vitexp.text import format_value

_LISTED = 10


def metrics(told: Mapping[str, Any]) -> Table:
    """Those of this evaluation, and of the run's own test beside them where it had the same images."""
    data, recorded = told["data"], told.get("result_json")
    table = _table(f"{told['run']['name']} on {data['images']:,} test images of {data['name']}")
    table.add_column("metric")
    table.add_column("evaluated", justify="right")
    if recorded:
        table.add_column("result.json", justify="right")
    for name in METRICS:
        values = [told["metrics"][name], *([recorded.get(name)] if recorded else [])]
        table.add_row(name, *(_metric(name, value) for value in values))
    return table


def confusions(found: Sequence[Confusion]) -> Table:
    table = _table(f"Confusions that cost most, of {sum(each.count for each in found):,} mistakes")
    table.add_column("true → predicted")
    for heading in ("images", "of the class", "accuracy points"):
        table.add_column(heading, justify="right")
    for each in found[:_LISTED]:
        count = f"{each.count:,} of {each.of:,}"
        table.add_row(f"{each.true} → {each.predicted}", count, percent(each.share_of_class), points(each.cost))
    return table


def calibration(told: Mapping[str, Any]) -> str:
    if told["temperature"] is None:
        return f"calibration: ECE {told['ece']:.4f}"
    return (
        f"calibration: ECE {told['ece']:.4f}, and {told['ece_scaled']:.4f} at temperature {told['temperature']:.3f}, "
        f"fitted on {told['fitted_on']['images']:,} validation images of {told['fitted_on']['name']}"
    )


def test_time(told: Mapping[str, Any]) -> Table:
    augmented = told["test_time_augmentation"]
    table = _table(f"Test-time augmentation: the mean of {len(augmented['views'])} views")
    table.add_column("metric")
    table.add_column("one view", justify="right")
    table.add_column("mean of views", justify="right")
    for name in METRICS:
        table.add_row(name, *(_metric(name, each[name]) for each in (told["metrics"], augmented["metrics"])))
    return table


def corruptions(told: Mapping[str, Any]) -> Table:
    table = _table(f"Accuracy on corrupted images; {percent(told['clean'])} as they are ({told['images']:,} images)")
    table.add_column("severity")
    for name in told["accuracy"]:
        table.add_column(name, justify="right")
    for severity, line in enumerate(zip(*told["accuracy"].values(), strict=True), start=1):
        table.add_row(str(severity), *map(percent, line))
    table.add_row("mean", *map(percent, told["mean"].values()))
    return table


def latency(rows: Sequence[Latency], told: Mapping[str, Any]) -> Table:
    table = _table(f"Latency on {told['environment']['device']}, {told['precision']}")
    for heading in ("batch", "ms, median", "quartiles", "images/s"):
        table.add_column(heading, justify="right")
    for row in rows:
        quartiles = " to ".join(map(format_value, row.ms_quartiles))
        table.add_row(f"{row.batch_size}", format_value(row.ms), quartiles, format_value(row.images_per_s))
    return table


def export(kind: str, told: Mapping[str, Any], folder: Path) -> str:
    where = folder / str(told.get("file", told.get("folder")))
    if not told["images_compared"]:
        return f"export    {where}: {told['note']}"
    other = "onnxruntime" if kind == "onnx" else "timm"
    return (
        f"export    {where}: logits of {other} and torch differ by at most {told['largest_difference']:.1e} "
        f"on {told['images_compared']} images"
    )


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left")


def _metric(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if name in ("loss", "ece") else percent(value)
