"""The lines and the table that a run prints when it starts and when it ends."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from lightning import Trainer
from omegaconf import DictConfig
from rich.table import Table

from vitexp.data.datamodule import ImageDataModule
from vitexp.data.length import AUTO, EPOCHS, LARGEST, steps_per_epoch
from vitexp.data.source import printable
from vitexp.metrics import metric
from vitexp.runs.concerns import IMBALANCED
from vitexp.runs.record import RunRecord, data_set
from vitexp.system.disk import typed
from vitexp.system.hardware import resolve_compile
from vitexp.text import cut, duration, plural, shortened
from vitexp.training.checkpoints import Position
from vitexp.training.distillation import TEACHER_WEIGHTS


def opening_lines(
    record: RunRecord,
    config: DictConfig,
    trainer: Trainer,
    datamodule: ImageDataModule,
    *,
    task: str = "",
    resumed_from: Position | None,
) -> dict[str, str]:
    """Return the lines about folder, device, data, model and training, with effective values, by name.

    record: must contain data, model and environment. task: the description of the task. resumed_from: position
    of the checkpoint that the run resumes from.
    """
    data, model, environment = (record.result[key] for key in ("data", "model", "environment"))
    found = datamodule.source.describe()
    devices, accumulated = environment["device_count"], trainer.accumulate_grad_batches
    shared = [f"{devices} devices"] * (devices > 1) + [f"{accumulated} accumulated"] * (accumulated > 1)
    batch = datamodule.batch_size
    split = f" ({' x '.join(shared)} x {batch // (devices * accumulated)})" if shared else ""
    steps, epochs = _steps_per_epoch(trainer, datamodule), int(trainer.max_epochs or 0)
    compiled = resolve_compile(config.trainer.compile, trainer.strategy.root_device)
    upsample = config.model.get("upsample")
    lines = {
        "run": typed(record.folder),
        "device": (f"{devices} x " if devices > 1 else "")
        + f"{environment['device']}, {trainer.precision}{_rounding(config, trainer)}, "
        + f"{'' if compiled else 'not '}compiled",
        "data": f"{data_set(data)}{f' ({found})' if found else ''}: {data['train']:,} train, "
        f"{data['val']:,} validation{_fold(config)}, {data['test']:,} test images, {data['classes']} classes, "
        f"{datamodule.image_size} x {datamodule.image_size} pixels",
        "model": f"{model['name']}: {model['parameters'] / 1e6:.2f} M parameters, "
        f"{f'images enlarged to {upsample} pixels, ' if upsample else ''}"
        f"{model['flops_per_image'] / 1e6:,.1f} MFLOPs per image",
        "training": f"{plural(epochs, 'epoch')} of {plural(steps, 'step')}, batch {batch}{split}, "
        f"peak learning rate {config.optim.lr:g}, seed {config.seed}{_sizes(config)}",
    }
    lines["classes"] = class_names(datamodule.classes)
    if chosen := _chosen(config, trainer, datamodule):
        lines["chosen"] = chosen
    if unread := data.get("unread"):
        lines["files"] = unread
    if datamodule.imbalance >= IMBALANCED:
        lines["balance"] = (
            f"the largest class has {datamodule.imbalance:.0f} times as many training images as the smallest; "
            f"{_compensation(config)}"
        )
    if config.trainer.debug:
        lines["debug"] = "this run tries things out; no command takes it for the newest run"
    if task:
        lines["task"] = task
    if weights := model.get("weights"):
        lines["weights"] = _weights(weights)
    if teacher := model.get("teacher"):
        lines["teacher"] = _teacher(teacher, config)
    if resumed_from is not None:
        is_trained = resumed_from["epochs"] == trainer.max_epochs
        lines["resumed"] = f"after step {resumed_from['steps']:,}, " + (
            "the last" if is_trained else f"in epoch {resumed_from['epochs'] + 1}"
        )
    return lines


def as_text(lines: Mapping[str, str], *, width: int | None) -> str:
    """Return the opening lines, wrapped between words to `width` columns; None: not wrapped. Paths stay whole."""
    made = []
    for name, text in lines.items():
        parts = [text]
        if width is not None and name != "run":
            parts = textwrap.wrap(text, max(width - 10, 20), break_long_words=False, break_on_hyphens=False)
        made += [f"{title:<9} {part}" for title, part in zip_longest([name], parts, fillvalue="")]
    return "\n".join(made)


def class_names(classes: Sequence[str], *, width: int = 70) -> str:
    """Return the names of the classes, as many as fit into `width` columns: "cat, dog and 8 more"."""
    names = [cut(printable(name), width // 2) for name in classes]
    texts = (shortened(names, most=most) for most in range(min(len(names), width), 0, -1))
    return next(text for text in texts if len(text) <= width)


def _chosen(config: DictConfig, trainer: Trainer, datamodule: ImageDataModule) -> str:
    """Return which lengths were chosen for a small data set, and how to change them."""
    chosen = {
        f"data.batch_size={datamodule.batch_size}": config.data.batch_size == AUTO and datamodule.batch_size < LARGEST,
        f"trainer.max_epochs={trainer.max_epochs}": config.trainer.max_epochs == AUTO
        and config.trainer.max_steps == -1
        and int(trainer.max_epochs or 0) > EPOCHS,
    }
    keys = " and ".join(key for key, is_chosen in chosen.items() if is_chosen)
    return keys and f"{keys}, because {plural(len(datamodule.train), 'training image')} are few"


def _rounding(config: DictConfig, trainer: Trainer) -> str:
    choice = config.trainer.float32_matmul_precision
    on_cuda = trainer.strategy.root_device.type == "cuda"
    return {"high": " with TF32", "medium": " with bf16 products"}.get(choice, "") if on_cuda else ""


def closing_table(result: dict[str, Any]) -> Table:
    """Return a table of the metrics on test and validation. result: the content of result.json."""
    table = Table(title=f"{result['name']}, seed {result['seed']}", title_justify="left")
    table.add_column("metric")
    table.add_column(f"test ({result['data']['test']:,} images)", justify="right")
    table.add_column(f"validation ({result['data']['val']:,})", justify="right")
    for name, value in result["metrics"]["test"].items():
        val = result["metrics"]["val"].get(name)
        table.add_row(metric(name).label, metric(name).format(value), metric(name).format(val))
    return table


def accuracy_interval(result: dict[str, Any]) -> str:
    """Return a sentence about the uncertainty of the test accuracy (Wilson 1927); "" without an accuracy."""
    accuracy, count = result["metrics"]["test"].get("accuracy"), result["data"]["test"]
    if accuracy is None or not count:
        return ""
    z2 = 1.96**2 / count
    center, half = accuracy + z2 / 2, math.sqrt(z2 * (accuracy * (1 - accuracy) + z2 / 4))
    low, high = (100 * (center + side * half) / (1 + z2) for side in (-1, 1))
    return f"95% interval of the test accuracy, from {plural(count, 'image')}: {low:.1f} to {high:.1f}%"


def closing_line(result: dict[str, Any]) -> str:
    """Return how long the run took, and how fast it trained."""
    timing = result["timing"]
    speed = timing["train_images_per_s"]
    return (
        f"trained {plural(result['epochs'], 'epoch')} in {duration(timing['fit_s'])}"
        + (f" at {speed:,.0f} images/s" if speed else "")
        + f"; {duration(timing['total_s'])} in total"
    )


def _compensation(config: DictConfig) -> str:
    used = [f"data.sampler={config.data.sampler}"] * (config.data.sampler != "shuffle")
    used += ["loss.class_weights"] * (config.loss.get("class_weights") is not None)
    if used:
        return f"compensated by {' and '.join(used)}"
    return "loss.class_weights=balanced or data.sampler=balanced would compensate"


def _fold(config: DictConfig) -> str:
    folds = config.data.folds
    return "" if folds is None else f" (data.fold={config.data.fold} of {folds})"


def _sizes(config: DictConfig) -> str:
    """Return the image sizes that training draws, and what they cost."""
    if not (sizes := config.training.get("image_sizes")):
        return ""
    patches = sum((size / config.data.image_size) ** 2 for size in sizes) / len(sizes)
    return (
        f", images of {', '.join(map(str, sizes))} pixels, one size drawn per batch ({patches:.2f} times the patches)"
    )


def _weights(info: dict[str, Any]) -> str:
    unused = [name for name in info["unused"] if name not in info["new"]]  # a replaced head is only called new
    parts = [
        f"{info['taken']} of {info['of']} tensors from {info['from']}",
        f"positions from {info['grids'][0]} x {info['grids'][0]} to {info['grids'][1]} x {info['grids'][1]}"
        if info["grids"]
        else "",
        f"new: {', '.join(info['new'])}" if info["new"] else "",
        f"not used: {', '.join(unused)}" if unused else "",
    ]
    return "; ".join(part for part in parts if part)


def _teacher(info: dict[str, Any], config: DictConfig) -> str:
    training = config.training
    weight = TEACHER_WEIGHTS[training.distillation] if training.teacher_weight is None else training.teacher_weight
    return (
        f"{info['model']} of {info['from']}, {info['test_accuracy']:.2%} on its test images, "
        f"{info['flops_per_image'] / 1e6:,.1f} MFLOPs per image; {training.distillation}, {weight:g} of the loss"
    )


def _steps_per_epoch(trainer: Trainer, datamodule: ImageDataModule) -> int:
    return steps_per_epoch(
        len(datamodule.train),
        batch_size=datamodule.batch_size,
        limit=trainer.limit_train_batches,
        accumulated=trainer.accumulate_grad_batches,
    )
