"""What a run says of itself when it begins and when it has ended."""

from __future__ import annotations

import math
from typing import Any

from lightning import Trainer
from omegaconf import DictConfig
from rich.table import Table

from vitexp.data.datamodule import ImageDataModule
from vitexp.runs.record import RunRecord
from vitexp.system.disk import typed
from vitexp.system.hardware import resolve_compile
from vitexp.training.checkpoints import Position
from vitexp.training.distillation import TEACHER_WEIGHTS


def opening_lines(
    record: RunRecord,
    config: DictConfig,
    trainer: Trainer,
    datamodule: ImageDataModule,
    *,
    task: str = "",
    going_on: Position | None,
) -> dict[str, str]:
    """Where, on what, what of and how it trains, with the effective values; by the name of the line.

    record: its data, model and environment are known. task: its description.
    going_on: the position of the checkpoint that it goes on from.
    """
    data, model, environment = (record.result[key] for key in ("data", "model", "environment"))
    found = datamodule.source.describe()
    devices, accumulated = environment["device_count"], trainer.accumulate_grad_batches
    shared = [f"{devices} devices"] * (devices > 1) + [f"{accumulated} accumulated"] * (accumulated > 1)
    batch = datamodule.batch_size
    at_a_time = f" ({' x '.join(shared)} x {batch // (devices * accumulated)})" if shared else ""
    steps = _steps_an_epoch(trainer, datamodule)
    compiled = resolve_compile(config.trainer.compile, trainer.strategy.root_device)
    upsample = config.model.get("upsample")
    lines = {
        "run": typed(record.folder),
        "device": (f"{devices} x " if devices > 1 else "")
        + f"{environment['device']}, {trainer.precision}, {'' if compiled else 'not '}compiled",
        "data": f"{data['name']}{f' ({found})' if found else ''}: {data['train']:,} train, "
        f"{data['val']:,} validation, {data['test']:,} test images, {data['classes']} classes, "
        f"{datamodule.image_size} pixels",
        "model": f"{model['name']}: {model['parameters'] / 1e6:.2f} M parameters, "
        f"{f'images enlarged to {upsample} pixels, ' if upsample else ''}"
        f"{model['flops_per_image'] / 1e6:,.1f} MFLOPs an image",
        "training": f"{trainer.max_epochs} epochs of {steps:,} steps, batch {batch}{at_a_time}, "
        f"peak learning rate {config.optim.lr:g}, seed {config.seed}{_sizes(config)}",
    }
    if task:
        lines["task"] = task
    if told := model.get("weights"):
        lines["weights"] = _told_of_weights(told)
    if told := model.get("teacher"):
        lines["teacher"] = _told_of_teacher(told, config)
    if going_on is not None:
        is_trained = going_on["epochs"] == trainer.max_epochs
        lines["goes on"] = f"after step {going_on['steps']:,}, " + (
            "the last" if is_trained else f"in epoch {going_on['epochs'] + 1}"
        )
    return lines


def closing_table(result: dict[str, Any]) -> Table:
    """The metrics of test and validation. result: what result.json holds."""
    table = Table(title=f"{result['name']}, seed {result['seed']}", title_justify="left")
    table.add_column("metric")
    table.add_column(f"test ({result['data']['test']:,} images)", justify="right")
    table.add_column(f"validation ({result['data']['val']:,})", justify="right")
    for name, value in result["metrics"]["test"].items():
        table.add_row(name, *(_shown(name, each) for each in (value, result["metrics"]["val"].get(name))))
    return table


def closing_line(result: dict[str, Any]) -> str:
    """How long it took, and how fast it was."""
    timing = result["timing"]
    speed = timing["train_images_per_s"]
    return (
        f"trained {result['epochs']} epochs in {timing['fit_s']:,.0f} s"
        + (f" at {speed:,.0f} images/s" if speed else "")
        + f"; {timing['total_s']:,.0f} s in all"
    )


def _sizes(config: DictConfig) -> str:
    """What the sizes that training draws cost."""
    if not (sizes := config.training.get("image_sizes")):
        return ""
    patches = sum((size / config.data.image_size) ** 2 for size in sizes) / len(sizes)
    return f", images of {', '.join(map(str, sizes))} pixels, drawn by batch ({patches:.2f} times the patches)"


def _told_of_weights(told: dict[str, Any]) -> str:
    parts = [
        f"{told['taken']} of {told['of']} tensors from {told['from']}",
        f"positions from {told['grids'][0]} x {told['grids'][0]} to {told['grids'][1]} x {told['grids'][1]}"
        if told["grids"]
        else "",
        f"new: {', '.join(told['new'])}" if told["new"] else "",
        f"not taken: {', '.join(told['unused'])}" if told["unused"] else "",
    ]
    return "; ".join(part for part in parts if part)


def _told_of_teacher(told: dict[str, Any], config: DictConfig) -> str:
    training = config.training
    weight = TEACHER_WEIGHTS[training.distillation] if training.teacher_weight is None else training.teacher_weight
    return (
        f"{told['model']} of {told['from']}, {told['test_accuracy']:.2%} on its test images, "
        f"{told['flops_per_image'] / 1e6:,.1f} MFLOPs an image; {training.distillation}, {weight:g} of the loss"
    )


def _steps_an_epoch(trainer: Trainer, datamodule: ImageDataModule) -> int:
    limit, accumulated = trainer.limit_train_batches, trainer.accumulate_grad_batches
    batches = len(datamodule.train) // datamodule.batch_size * accumulated
    return math.ceil((min(limit, batches) if isinstance(limit, int) else int(limit * batches)) / accumulated)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if name in ("loss", "ece") else f"{value:.2%}"
