"""Callbacks that break a run of another process on purpose: +callbacks.x={_target_: tests.failing.NoMemory, ...}."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer


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


class SecondProcess(Callback):
    """A callback that ends the process of rank 1 at step 1: how = raise | kill. stuck: rank 0 then never goes on."""

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
