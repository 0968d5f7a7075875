"""Loggers of scalars and figures: metrics.csv, Weights & Biases, TensorBoard."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from vitexp.errors import ConfigError, require
from vitexp.options import Doc, Field, Words
from vitexp.system.disk import refusal, tolerating
from vitexp.system.wandb_mode import refuse_unknown_mode
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.faults import is_on, turning_off
from vitexp.training.metrics_file import MetricsFile

log = logging.getLogger(__name__)

_Name = Annotated[
    str, Field(pattern=r"^[^/\\#?%:]{1,128}$"), Words("a name of at most 128 characters without / \\ # ? % :")
]


class MetricsCsvLogger(CSVLogger):
    """A logger that writes `folder`/metrics.csv; see MetricsFile."""

    title = "metrics.csv"

    def __init__(self, *, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="")
        self._file = MetricsFile(folder / "metrics.csv")

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        return self._file

    @rank_zero_only
    def save(self) -> None:
        with tolerating("metrics.csv"):
            self._file.save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.save()


def csv_logger(*, folder: Path, run_id: str, name: str) -> Logger:
    """Build the logger of metrics.csv in the run folder."""
    return MetricsCsvLogger(folder=folder)


class PatientTensorBoardLogger(TensorBoardLogger):
    """A TensorBoardLogger that loses events on a full disk instead of stopping the run.

    After a failed write it starts another events file, at most every `retry_s` seconds, because the old one is lost.
    """

    title = "TensorBoard"
    retry_s = 60.0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._refused_at: float | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The events file. Raises AttributeError on a full disk, because Lightning tests with hasattr."""
        try:
            return super().experiment
        except OSError as error:
            if refusal(error) is None:
                raise
            raise AttributeError("there is no events file") from error

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Tolerate a full disk while the block writes events."""
        with tolerating("tensorboard"):
            if self._refused_at is not None and time.monotonic() < self._refused_at + self.retry_s:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            try:
                yield
            except Exception:
                self._refused_at, self._experiment = time.monotonic(), None
                raise

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        with self.tolerating():
            super().log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, *arguments: Any, **more: Any) -> None:
        with self.tolerating():
            super().log_hyperparams(*arguments, **more)

    @rank_zero_only
    def save(self) -> None:
        with self.tolerating():
            super().save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        with self.tolerating():
            super().finalize(status)


def tensorboard_logger(*, folder: Path, run_id: str, name: str) -> Logger:
    """Build the logger of events in `tensorboard/` of the run folder. Raises ConfigError if tensorboard is missing."""
    require("tensorboard", needed_by="logger=tensorboard", alternative="logger=csv")
    return PatientTensorBoardLogger(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)


def wandb_logger(
    *,
    folder: Path,
    run_id: str,
    name: str,
    project: Annotated[_Name, Doc("W&B project")] = "vitexp",
    entity: Annotated[_Name | None, Doc("W&B user or team; null: your default")] = None,
    group: Annotated[
        Annotated[str, Field(pattern=r"^.{1,128}$")] | None, Doc("group of runs, such as trials of a sweep; null: none")
    ] = None,
    row: Annotated[
        str | None, Doc("name of the run without the seed, which a sweep sets to the row; null: name")
    ] = None,
    tags: Annotated[
        list[Annotated[str, Field(pattern=r"^.{1,64}$")]],
        Doc("tags of the run, besides data, model, optimizer and experiment"),
    ] = [],  # noqa: B006
    weights: Annotated[
        bool | Literal["auto"],
        Words("true, false or auto"),
        Doc("upload model.safetensors as an artifact; auto: if online"),
    ] = "auto",
    mode: Annotated[
        Literal["auto", "online", "offline"], Doc("auto (online if logged in) | online | offline")
    ] = "auto",
) -> Logger:
    """Build the logger of a W&B run with the id of the run folder."""
    if mode not in ("auto", "online", "offline"):
        raise ConfigError(f"logger.wandb.mode={mode} must be auto, online or offline.")
    refuse_unknown_mode()
    return BackgroundWandbLogger(
        mode=mode,
        row=row,
        weights=weights,
        name=name,
        id=run_id,
        save_dir=str(folder),
        project=project,
        entity=entity,
        group=group,
        tags=list(tags),
    )


def log_figure(loggers: Sequence[Logger], *, key: str, path: Path, step: int) -> None:
    """Log the PNG at `path` with every logger that accepts images."""
    for logger in filter(is_on, loggers):
        with turning_off(logger):
            if isinstance(logger, BackgroundWandbLogger):
                logger.log_image(key, [str(path)], step=step)
            elif isinstance(logger, PatientTensorBoardLogger):
                import numpy as np
                from PIL import Image

                image = np.asarray(Image.open(path).convert("RGB"))
                with logger.tolerating():
                    logger.experiment.add_image(key, image, global_step=step, dataformats="HWC")
