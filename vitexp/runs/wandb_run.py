"""What a run tells Weights & Biases, if it logs there; see BackgroundWandbLogger."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from vitexp.config.components import facts
from vitexp.config.rules import direction, monitored
from vitexp.runs.record import RunRecord
from vitexp.system.signals import Interrupted, StopSignals
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.faults import turning_off
from vitexp.training.metrics_file import rows_before


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


def close_wandb(loggers: Sequence[Logger], stop: StopSignals, *, failed: bool) -> None:
    """Close the runs of W&B. A signal ends the wait for the upload, unless it ended the run; then only Ctrl-C does."""
    for logger in wandb_loggers(loggers):
        at_once = stop.at_once() if stop.requested is None else nullcontext()
        with turning_off(logger), suppress(Interrupted), at_once:
            logger.close(failed=failed)
