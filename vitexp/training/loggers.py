"""Loggers of scalars and figures: metrics.csv, Weights & Biases, TensorBoard."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vitexp.errors import ConfigError, reason, require
from vitexp.options import Doc, Field, Words
from vitexp.system.disk import note, refusal, tolerating, typed
from vitexp.system.wandb_mode import refuse_unknown_mode, resolve_wandb_mode
from vitexp.training.faults import is_on, turning_off
from vitexp.training.metrics_file import MetricsFile, Row, rows_before

log = logging.getLogger(__name__)

_Name = Annotated[
    str, Field(pattern=r"^[^/\\#?%:]{1,128}$"), Words("a name of at most 128 characters without / \\ # ? % :")
]
_WANDB_TIMEOUT_S = 30.0  # for opening a run online; it usually takes two
_ROOM = 1 << 16  # bytes; a disk with less free space counts as full


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


class BackgroundWandbLogger(WandbLogger):
    """A WandbLogger that opens its run in a thread, because importing wandb and starting its service takes 2 seconds.

    Access to the run waits until it is open. mode: "online", "offline", or "auto" (online if logged in). A run that
    cannot be opened online is recorded offline.
    """

    title = "W&B"

    def __init__(self, *, mode: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._wandb_init.pop("anonymous", None)  # Lightning always passes it, and wandb warns about it
        self._mode = mode
        self._opening: Future[Any] | None = None
        self._lossy = False  # the disk was full at some point

    @rank_zero_only
    def open(self, config: dict[str, Any], *, earlier: Sequence[Row]) -> None:
        """Start opening the run with `config`. earlier: the rows that it logged before it was interrupted."""
        self._wandb_init["config"] = config
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="wandb").submit(self._open, earlier)

    def _open(self, earlier: Sequence[Row]) -> Any:
        # For this run only; Lightning's own `offline` affects the whole process.
        try:
            self._wandb_init["mode"] = resolve_wandb_mode(self._mode)
            run = super().experiment
        except Exception as error:
            if self._wandb_init.get("mode") == "offline":
                raise
            log.warning("W&B cannot be reached (%s); this run is recorded offline", reason(error))
            _forget_service()  # it holds on to the id of the run
            self._wandb_init["mode"] = "offline"
            run = super().experiment
        if run.offline:
            # Uploading the files of a resumed run replaces the earlier ones (wandb/wandb#5865), so log all rows again.
            _log_rows(run, earlier)
        return run

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; until it is open, a placeholder that waits for it at the first access."""
        if self._opening is None:
            return super().experiment
        return self._opening.result() if self._opening.done() else _Awaited(self._opening)

    @rank_zero_only
    def say_where(self) -> None:
        """Log the address of the run, or the command that uploads it, as soon as it is open."""
        if self._opening is not None:
            self._opening.add_done_callback(_say_where)

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Tolerate a full disk while the block logs scalars and images.

        The service of wandb writes them later and silently gives up on a full disk, so check the free space here.
        """
        with tolerating("wandb"):
            yield
        if shutil.disk_usage(self.save_dir or ".").free < _ROOM:
            self._lossy = True
        if self._lossy:
            note("wandb", os.strerror(errno.ENOSPC))

    @contextmanager
    def recovering(self) -> Iterator[None]:
        """If wandb fails in the block, open the run again, offline, and log the rows of metrics.csv again.

        What the block logs is lost. A second failure is raised.
        """
        try:
            with self.tolerating():
                yield
        except Exception as error:
            if self._mode == "recovered" or self._opening is None:
                raise
            log.warning("W&B failed (%s); this run is recorded offline", reason(error))
            _forget_service()
            self._mode, self._experiment, self._wandb_init["mode"] = "recovered", None, "offline"
            path = Path(self.save_dir or ".") / "metrics.csv"
            self._opening = ThreadPoolExecutor(1, thread_name_prefix="wandb").submit(self._log_again, path)

    def _log_again(self, path: Path) -> Any:
        run = super().experiment
        _log_rows(run, rows_before(path, sys.maxsize))
        return run

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        with self.recovering():
            super().log_metrics(metrics, step)

    def close(self, *, failed: bool) -> None:
        """Close the run, if it was opened, as finished or failed, so that the next run in this process gets its own."""
        if self._opening is not None and self._opening.exception() is None:
            with self.recovering():
                self._opening.result().finish(exit_code=int(failed))


class _Awaited:
    """Placeholder for the run of a Future, because Lightning touches every logger's run before training."""

    def __init__(self, opening: Future[Any]) -> None:
        self._opening = opening

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opening.result(), name)


def _log_rows(run: Any, rows: Sequence[Row]) -> None:
    for row in rows:
        scalars = {name: value for name, value in row.items() if name != "step"}
        run.log({**scalars, "trainer/global_step": row["step"]})


def _forget_service() -> None:
    """Make wandb forget its service, which may have ended, and the open run; the next run starts another service."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()
    wandb.run = None
    os.environ.pop("WANDB_SERVICE", None)


def _say_where(opening: Future[Any]) -> None:
    if opening.exception() is None:
        run = opening.result()
        upload = f"offline; to upload this run:\n          wandb sync {typed(Path(run.dir).parent)}"
        log.info("wandb     %s", upload if run.offline else run.url)


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
    tags: Annotated[list[Annotated[str, Field(pattern=r"^.{1,64}$")]], Doc("tags of the run")] = [],  # noqa: B006
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
        name=f"{name}/{run_id}",
        id=run_id,
        save_dir=str(folder),
        project=project,
        entity=entity,
        group=group,
        tags=list(tags),
        settings={"silent": True, "console": "off", "init_timeout": _WANDB_TIMEOUT_S},
    )


def log_figure(loggers: Sequence[Logger], *, key: str, path: Path, step: int) -> None:
    """Log the PNG at `path` with every logger that accepts images."""
    for logger in filter(is_on, loggers):
        with turning_off(logger):
            if isinstance(logger, BackgroundWandbLogger):
                with logger.recovering():
                    logger.log_image(key, [str(path)], step=step)
            elif isinstance(logger, PatientTensorBoardLogger):
                import numpy as np
                from PIL import Image

                image = np.asarray(Image.open(path).convert("RGB"))
                with logger.tolerating():
                    logger.experiment.add_image(key, image, global_step=step, dataformats="HWC")
