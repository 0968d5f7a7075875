"""Where a run's scalars and figures go: metrics.csv, Weights & Biases, TensorBoard."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vitexp.errors import ConfigError
from vitexp.system.disk import note, refusal, tolerating
from vitexp.system.wandb_mode import resolve_wandb_mode
from vitexp.training.metrics_file import MetricsFile, Row

log = logging.getLogger(__name__)

_ROOM = 1 << 16  # bytes: with less on it, a disk is full


class MetricsCsvLogger(CSVLogger):
    """metrics.csv in `folder`: a row a step or epoch, a column a scalar. Rows that a full disk refuses come later."""

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
    """metrics.csv in the run folder."""
    return MetricsCsvLogger(folder=folder)


class PatientTensorBoardLogger(TensorBoardLogger):
    """A TensorBoardLogger that a full disk costs some of its events, and not the run.

    An events file that was refused once takes no more; another is begun at most every `retry_s` seconds, so that the
    folder does not fill with empty ones.
    """

    retry_s = 60.0

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._refused_at: float | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Opens an events file. Raises AttributeError where the disk refuses one: Lightning asks with hasattr first."""
        try:
            return super().experiment
        except OSError as error:
            if refusal(error) is None:
                raise
            raise AttributeError("there is no events file") from error

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Inside, events may be written."""
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
    """Event files in `tensorboard/` of the run folder. Raises ConfigError where the package is missing."""
    try:
        return PatientTensorBoardLogger(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise ConfigError("logger=tensorboard needs one more package: pip install tensorboard.") from error


class BackgroundWandbLogger(WandbLogger):
    """A WandbLogger that opens its run in a thread: importing wandb and starting its service takes two seconds, which
    the data and the first steps need as well. Whoever needs the run before it is open waits for it.

    mode: "online", "offline", or "auto": online where there is a login.
    """

    def __init__(self, *, mode: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._wandb_init.pop("anonymous", None)  # Lightning passes it always, and wandb warns of it always
        self._mode = mode
        self._opening: Future[Any] | None = None
        self._lossy = False  # the disk was full at a time

    @rank_zero_only
    def open(self, config: dict[str, Any], *, earlier: Sequence[Row]) -> None:
        """Begin to open the run, which is described by `config`. earlier: what it logged before it was stopped."""
        self._wandb_init["config"] = config
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="wandb").submit(self._open, earlier)

    def _open(self, earlier: Sequence[Row]) -> Any:
        # for this run alone: Lightning's own `offline` would hold for the whole process
        self._wandb_init["mode"] = resolve_wandb_mode(self._mode)
        run = super().experiment
        if run.offline:
            # Uploaded, the files of a run that went on replace those from before (wandb/wandb#5865): so they hold all.
            for row in earlier:
                scalars = {name: value for name, value in row.items() if name != "step"}
                run.log({**scalars, "trainer/global_step": row["step"]})
        return run

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; while it is being opened, what waits for it as soon as anything is asked of it."""
        if self._opening is None:
            return super().experiment
        return self._opening.result() if self._opening.done() else _Awaited(self._opening)

    @rank_zero_only
    def say_where(self) -> None:
        """Log one line, as soon as the run is open: its address, or the command that uploads it."""
        if self._opening is not None:
            self._opening.add_done_callback(_say_where)

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Inside, scalars and pictures may be handed over.

        The service of wandb writes them later, and where the disk refuses then, it gives up without a word. So the disk
        is looked at here.
        """
        with tolerating("wandb"):
            yield
        if shutil.disk_usage(self.save_dir or ".").free < _ROOM:
            self._lossy = True
        if self._lossy:
            note("wandb", os.strerror(errno.ENOSPC))

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        with self.tolerating():
            super().log_metrics(metrics, step)

    def close(self, *, failed: bool) -> None:
        """Close the run, if one began, as finished or failed; the next run in this process gets one of its own."""
        if self._opening is not None and self._opening.exception() is None:
            with self.tolerating():
                self._opening.result().finish(exit_code=int(failed))


class _Awaited:
    """Stands for the run that a Future brings, because Lightning touches every logger's run before it trains."""

    def __init__(self, opening: Future[Any]) -> None:
        self._opening = opening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opening.result(), name)


def _say_where(opening: Future[Any]) -> None:
    if opening.exception() is None:
        run = opening.result()
        log.info(
            "wandb     %s",
            f"offline; wandb sync {Path(run.dir).parent} uploads it" if run.offline else run.url,
        )


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
    return BackgroundWandbLogger(
        mode=mode,
        name=f"{name}/{run_id}",
        id=run_id,
        save_dir=str(folder),
        project=project,
        entity=entity,
        group=group,
        tags=list(tags),
        settings={"silent": True, "console": "off"},
    )


def log_figure(loggers: Sequence[Logger], *, key: str, path: Path, step: int) -> None:
    """Hand the PNG at `path` to every logger that takes pictures."""
    for logger in loggers:
        if isinstance(logger, BackgroundWandbLogger):
            with logger.tolerating():
                logger.log_image(key, [str(path)], step=step)
        elif isinstance(logger, PatientTensorBoardLogger):
            import numpy as np
            from PIL import Image

            image = np.asarray(Image.open(path).convert("RGB"))
            with logger.tolerating():
                logger.experiment.add_image(key, image, global_step=step, dataformats="HWC")
