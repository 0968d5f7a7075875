"""How long one waits: from a command to the first training step, to an error message, to the help."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer

from vitexp.bench.report import Row, Subject
from vitexp.errors import ConfigError

IMPORTS = "import torch, lightning"


class ExitAtFirstStep(Callback):
    """Writes the time (seconds since 1970) into the file `path` when the first step is done, and ends the process."""

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.path.write_text(repr(time.time()))
        os._exit(0)  # at once: how a run ends is not measured here


def measure_start(overrides: Sequence[str], *, starts: int) -> Subject:
    """Whole processes, taking turns; `overrides` are those of train.py. A first round fills caches, uncounted."""
    processes: dict[str, Callable[[], float]] = {
        IMPORTS: lambda: _seconds([sys.executable, "-c", IMPORTS]),
        "train.py, to the first step": lambda: _seconds_to_first_step(overrides),
        "train.py model=typo": lambda: _seconds(python_train("model=typo"), exit_code=2),
        "train.py --help": lambda: _seconds(python_train("--help")),
    }
    rounds: dict[str, list[float]] = {name: [] for name in processes}
    for number in range(starts + 1):
        for name, process in processes.items():
            seconds = process()
            if number > 0:
                rounds[name].append(seconds)
    [imports, *_] = rounds.values()
    return Subject(
        name="start",
        title="Start-up, data cached",
        unit="s",
        comparison="difference_s",
        comparison_title="beyond the imports, s",
        rows=[
            Row(name=name, rounds=each, compared=float(np.median(np.subtract(each, imports))))
            for name, each in rounds.items()
        ],
    )


def _seconds(command: list[str], *, exit_code: int = 0) -> float:
    begun = time.time()
    checked(command, exit_code=exit_code)
    return time.time() - begun


def _seconds_to_first_step(overrides: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # W&B outlives the process for a moment
        path = Path(folder) / "first_step"
        begun = time.time()
        checked(
            python_train(
                *overrides,
                f'log_dir="{folder}"',
                "+callbacks.first_step._target_=vitexp.bench.start.ExitAtFirstStep",
                f'+callbacks.first_step.path="{path}"',
            )
        )
        return float(path.read_text()) - begun


def python_train(*arguments: str) -> list[str]:
    """The command `python train.py` with `arguments`."""
    return [sys.executable, "-m", "vitexp", "train", *arguments]


def checked(command: list[str], *, exit_code: int = 0) -> str:
    """What the command prints. Raises ConfigError, with its last line of errors, where it ends with another code."""
    # none of vitexp's own variables: the process is to be as if somebody had typed the command
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "VITEXP_PLAIN_ERRORS")
    }
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**inherited, "WANDB_MODE": "offline"}, check=False
    )
    if ended.returncode != exit_code:
        [*_, last] = ["no message", *ended.stderr.strip().splitlines()]
        raise ConfigError(f"{' '.join(command)} ended with code {ended.returncode}: {last}")
    return ended.stdout
