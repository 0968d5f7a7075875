"""What a run tells Weights & Biases, if it logs there; see BackgroundWandbLogger."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from vitexp.config.components import facts
from vitexp.config.rules import direction, monitored
from vitexp.errors import reason
from vitexp.runs.record import RunRecord
from vitexp.system.signals import Interrupted, StopSignals
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.faults import turning_off
from vitexp.training.metrics_file import rows_before

_LIBRARIES = {"site-packages", "dist-packages"}  # folders of installed packages


def wandb_loggers(loggers: Sequence[Logger]) -> list[BackgroundWandbLogger]:
    """Return the loggers of W&B."""
    return [logger for logger in loggers if isinstance(logger, BackgroundWandbLogger)]


def open_wandb(loggers: Sequence[Logger], config: DictConfig, record: RunRecord, *, steps: int) -> None:
    """Start W&B in the background, with the metrics of the first `steps` steps of a resumed run."""
    for logger in wandb_loggers(loggers):
        with turning_off(logger):
            task = facts(config.task)
            monitor, mode = monitored(config)
            if monitor is None:  # validation does not choose the weights
                monitor = task.get("monitor", "val/loss")
                mode = direction(monitor)
            words = [override.lstrip("+").partition("=") for override in record.result["overrides"]]
            tags = [config.data.name, config.model.name, config.optim._target_.rpartition(".")[2].lower()]
            logger.open(
                OmegaConf.to_container(config, resolve=True),  # type: ignore[arg-type]
                earlier=rows_before(record.folder / "metrics.csv", steps),
                job_type="train" if task.get("uses_labels", True) else "pretrain",
                tags=[*tags, *(value for key, _, value in words if key == "experiment")],
                monitor=(monitor, mode),
            )
            if files := own_files(config):
                logger.log_code(files)


def summarize(loggers: Sequence[Logger], record: RunRecord) -> None:
    """Add the size of the model and the speed of its training to the summary in W&B."""
    model, timing = record.result["model"], record.result["timing"] or {}
    values = {
        "model/parameters": model["parameters"],
        "model/flops_per_image": model["flops_per_image"],
        "train/images_per_s": timing.get("train_images_per_s"),
    }
    for logger in wandb_loggers(loggers):
        with turning_off(logger):
            logger.summarize({name: value for name, value in values.items() if value is not None})


def log_weights(loggers: Sequence[Logger], record: RunRecord, *, chosen: bool) -> None:
    """Keep the weights in W&B. chosen: whether validation chose them; otherwise they are the last ones."""
    path = record.folder / "model.safetensors"
    for logger in wandb_loggers(loggers):
        with turning_off(logger):
            logger.log_weights(path, aliases=["best" if chosen else "last", f"seed-{record.result['seed']}"])


def own_files(config: DictConfig) -> dict[str, Path]:
    """Return the files of the classes in `config` that are the user's own: of neither vitexp nor a library.

    The keys are their paths within their packages.
    """
    files: dict[str, Path] = {}
    for target in _targets(OmegaConf.to_container(config)):
        parts = target.split(".")
        modules = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
        name = next((each for each in modules if each in sys.modules), None)
        if name is None or parts[0] == "vitexp" or (file := getattr(sys.modules[name], "__file__", None)) is None:
            continue
        path = Path(file).resolve()
        if _LIBRARIES.isdisjoint(path.parts):
            is_package = path.stem == "__init__"
            files[f"{name.replace('.', '/')}{'/__init__' if is_package else ''}{path.suffix}"] = path
    return files


def _targets(node: Any) -> Iterator[str]:
    """Yield the value of every `_target_` in `node`."""
    if isinstance(node, dict) and isinstance(target := node.get("_target_"), str):
        yield target
    if isinstance(node, dict | list):
        for each in node.values() if isinstance(node, dict) else node:
            yield from _targets(each)


def close_wandb(
    loggers: Sequence[Logger], stop: StopSignals, *, failed: bool, error: BaseException | None = None
) -> None:
    """Close the runs of W&B. A signal ends the wait for the upload, unless it ended the run; then only Ctrl-C does.

    error: what ended the run.
    """
    text = reason(error) if isinstance(error, Exception) else None  # not if it was interrupted
    for logger in wandb_loggers(loggers):
        at_once = stop.at_once() if stop.requested is None else nullcontext()
        with turning_off(logger), suppress(Interrupted), at_once:
            logger.close(failed=failed, error=text)
