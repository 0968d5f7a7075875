"""Where a run's scalars and figures go: metrics.csv, Weights & Biases, TensorBoard."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vitexp.errors import ConfigError
from vitexp.wandb_mode import resolve_wandb_mode

log = logging.getLogger(__name__)


def csv_logger(*, folder: Path, run_id: str, name: str) -> Logger:
    """metrics.csv in the run folder: a row a step or epoch, a column a scalar."""
    return CSVLogger(save_dir=folder, name="", version="")


def tensorboard_logger(*, folder: Path, run_id: str, name: str) -> Logger:
    """Event files in `tensorboard/` of the run folder. Raises ConfigError where the package is missing."""
    try:
        return TensorBoardLogger(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)
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

    @rank_zero_only
    def open(self, config: dict[str, Any]) -> None:
        """Begin to open the run, which is described by `config`, and say where it is."""
        self._wandb_init["config"] = config
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="wandb").submit(self._open)

    def _open(self) -> Any:
        # for this run alone: Lightning's own `offline` would hold for the whole process
        self._wandb_init["mode"] = resolve_wandb_mode(self._mode)
        return super().experiment

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

    def close(self, *, failed: bool) -> None:
        """Close the run, if one began, as finished or failed; the next run in this process gets one of its own."""
        if self._opening is not None and self._opening.exception() is None:
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
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [str(path)], step=step)
        elif isinstance(logger, TensorBoardLogger):
            import numpy as np
            from PIL import Image

            image = np.asarray(Image.open(path).convert("RGB"))
            logger.experiment.add_image(key, image, global_step=step, dataformats="HWC")
