"""Where a run's scalars and figures go: metrics.csv, Weights & Biases, TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from vitexp.errors import ConfigError


def csv_logger(*, folder: Path, run_id: str, name: str) -> Logger:
    """metrics.csv in the run folder: a row a step or epoch, a column a scalar."""
    return CSVLogger(save_dir=folder, name="", version="")


def tensorboard_logger(*, folder: Path, run_id: str, name: str) -> Logger:
    """Event files in `tensorboard/` of the run folder. Raises ConfigError where the package is missing."""
    try:
        return TensorBoardLogger(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise ConfigError("logger=tensorboard needs one more package: pip install tensorboard.") from error


def wandb_logger(
    *,
    folder: Path,
    run_id: str,
    name: str,
    project: str,
    entity: str | None,
    group: str | None,
    tags: Sequence[str],
    mode: str,
) -> Logger:
    """A W&B run with the id of the run folder. mode: "online", "offline", or "auto": online where there is a login."""
    if mode not in ("auto", "online", "offline"):
        raise ConfigError(f"logger.wandb.mode={mode} must be auto, online or offline.")
    offline = mode == "offline" or (mode == "auto" and not _logged_in())
    logger = WandbLogger(
        name=f"{name}/{run_id}",
        id=run_id,
        save_dir=str(folder),
        project=project,
        entity=entity,
        group=group,
        tags=list(tags),
        # for this run alone: Lightning's own `offline` would hold for the whole process
        mode="offline" if offline else "online",
        settings={"silent": True, "console": "off"},
    )
    logger._wandb_init.pop("anonymous", None)  # Lightning passes it always, and wandb warns of it always
    return logger


def _logged_in() -> bool:
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    return bool(wandb.login(prompt=False))


def log_figure(loggers: Sequence[Logger], *, key: str, path: Path, step: int) -> None:
    """Hand the PNG at `path` to every logger that takes pictures."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [str(path)], step=step)
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np
            from PIL import Image

            image = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(key, image, global_step=step, dataformats="HWC")


def describe_wandb(loggers: Sequence[Logger]) -> str | None:
    """One line on where the W&B run is: its address, or the command that uploads it."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            return str(run.url) if not run.offline else f"offline; wandb sync {Path(run.dir).parent} uploads it"
    return None


def finish_wandb(loggers: Sequence[Logger], *, failed: bool) -> None:
    """Close the W&B run, if one began, as finished or failed; the next run in this process gets one of its own."""
    if any(isinstance(logger, WandbLogger) for logger in loggers):
        import wandb

        if wandb.run is not None:
            wandb.finish(exit_code=int(failed))
