"""Callbacks that break a run of another process on purpose: +callbacks.x={_target_: tests.failing.NoMemory, ...}."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import urlopen

import psutil
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure

from tests.wandb_server import FAIL
from vitexp.data.prepare import Prepared
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.callbacks.figure_callback import FigureCallback


class NoMemory(Callback):
    """A callback that simulates running out of memory at step `step` on some ranks."""

    def __init__(self, *, ranks: Sequence[int], step: int) -> None:
        self.ranks, self.step = ranks, step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_rank in self.ranks and trainer.global_step == self.step:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")


class Alone(Callback):
    """A callback that ends or stops its process at step 1: how = raise | kill | hang | block | exit | record.

    record writes what the process has been given to the file `path`.
    """

    def __init__(self, *, how: str, path: str = "") -> None:
        self.how, self.path = how, path

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step != 1:
            return
        if self.how == "record":
            Path(self.path).write_text(json.dumps(given()))
        elif self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "hang":
            time.sleep(600)
        elif self.how == "block":  # within a library, where Python runs no signal handler
            mutex = ctypes.create_string_buffer(64)
            for _ in range(2):
                ctypes.CDLL(None).pthread_mutex_lock(mutex)
        elif self.how == "exit":  # as a library might
            sys.exit(7)
        else:
            raise ValueError("enough")


def given() -> dict[str, Any]:
    """Return what the starter of a process decides."""
    return {
        "environment": {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MINE")},
        "threads": torch.get_num_threads(),
        "cwd": os.getcwd(),
        "arguments": sys.argv[1:],
        "main": str(sys.modules["__main__"].__spec__ and sys.modules["__main__"].__spec__.name),
        "path": sys.path[0],
        "session": os.getsid(0) == os.getpgrp(),
        "stdin": os.readlink("/proc/self/fd/0"),
        "stdout": os.readlink("/proc/self/fd/1"),
        "children": str(signal.getsignal(signal.SIGCHLD)),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }


class LoggerFault(Callback):
    """A callback that takes away what a logger needs: when = start | middle | end of the run.

    what = service (kills W&B's helper processes) | stopped service (stops them) | server (makes tests.wandb_server fail
    in the way `path`) | folder (a file takes the place of the folder or file `path`).
    """

    def __init__(self, *, when: str, what: str, path: str = "") -> None:
        self.when, self.what, self.path = when, what, path

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._break("start")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            self._break("middle", trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._break("end", trainer)

    def _wait_for_wandb(self, trainer: Trainer) -> None:
        """Wait until the run of W&B is open: training is shorter than that."""
        for logger in trainer.loggers:
            if isinstance(logger, BackgroundWandbLogger):
                str(logger.experiment.id)

    def _break(self, now: str, trainer: Trainer | None = None) -> None:
        if now != self.when:
            return
        if trainer is not None:
            self._wait_for_wandb(trainer)
        if self.what == "server":
            urlopen(f"{os.environ['WANDB_BASE_URL']}{FAIL}{self.path}", timeout=10).close()  # noqa: S310
            return
        if "service" in self.what:
            name = "wandb-core" if "stopped" in self.what else "wandb"  # the other one monitors the system
            helpers: list[psutil.Process] = []
            deadline = time.monotonic() + 60
            while not helpers:  # at the start, it may not have begun
                assert time.monotonic() < deadline, "W&B has no helper process"
                children = psutil.Process().children(recursive=True)
                helpers = [each for each in children if name in " ".join(each.cmdline())]
                time.sleep(0.05)
            for helper in helpers:
                helper.send_signal(signal.SIGSTOP if "stopped" in self.what else signal.SIGKILL)
            return
        path = Path(self.path)
        if path.is_dir():
            while path.exists():  # W&B may write while it is removed
                shutil.rmtree(path, ignore_errors=True)
            path.write_text("in the way")
        else:
            path.unlink(missing_ok=True)
            path.mkdir()


class FailingLogger(Logger):
    """A logger whose method `method` raises an exception that nobody expects."""

    def __init__(self, *, method: str) -> None:
        super().__init__()
        self.method = method

    def _call(self, method: str) -> None:
        if method == self.method:
            raise KeyError("the server is on fire")

    @property
    def name(self) -> str:
        return "failing"

    @property
    def version(self) -> str:
        return "1"

    @property
    def experiment(self) -> Any:
        self._call("experiment")
        return None

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._call("log_metrics")

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        self._call("log_hyperparams")

    def save(self) -> None:
        self._call("save")

    def finalize(self, status: str) -> None:
        self._call("finalize")


def failing_logger(*, folder: Path, run_id: str, name: str, method: str) -> Logger:
    return FailingLogger(method=method)


class FailingFigure(FigureCallback):
    """A figure that cannot be drawn."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {"failing": ("Failing", "Nothing.")}

    def draw(self, trainer: Trainer, module: Any, images: Prepared) -> Iterator[Figure]:
        module.net.eval()
        raise OSError(errno.EACCES, "no permission to draw")
        yield


class LateFigure(FigureCallback):
    """A figure that cannot be drawn before the weights, the predictions and the metrics are written."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {"late": ("Late", "Nothing.")}

    def draw(self, trainer: Trainer, module: Any, images: Prepared) -> Iterator[Figure]:
        folder = Path(trainer.default_root_dir)
        assert all((folder / name).exists() for name in ("model.safetensors", "predictions.csv"))
        assert json.loads((folder / "result.json").read_text())["metrics"]["test"]
        yield from ()


class SecondProcess(Callback):
    """A callback that ends the process of rank 1 at step 1: how = raise | kill. stuck: rank 0 hangs from then on."""

    def __init__(self, *, how: str, stuck: bool = False) -> None:
        self.how, self.stuck = how, stuck

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step != 1:
            return
        if trainer.global_rank == 0 and self.stuck:
            time.sleep(600)
        elif trainer.global_rank == 1 and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif trainer.global_rank == 1:
            raise ValueError("the second process failed")
