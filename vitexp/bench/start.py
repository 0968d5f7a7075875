"""Start-up times: from a command to the first training step, to an error message, to the help."""

from __future__ import annotations

import os
import shlex
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
from vitexp.config.overrides import quoted
from vitexp.errors import ConfigError

IMPORTS = "import torch, lightning"


class ExitAtFirstStep(Callback):
    """A callback that writes the time (seconds since 1970) to the file `path` after the first step and exits."""

    def __init__(self, *, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.path.write_text(repr(time.time()), encoding="utf-8")
        os._exit(0)  # skips the end of the run, which is not measured


def measure_start(overrides: Sequence[str], *, starts: int) -> Subject:
    """Time whole processes in turns; the first round only fills caches. overrides: for the training run."""
    train = [sys.executable, "-m", "vitexp", "train"]
    processes: dict[str, Callable[[], float]] = {
        IMPORTS: lambda: _seconds([sys.executable, "-c", IMPORTS]),
        "train, to the first step": lambda: _seconds_to_first_step(overrides),
        "train model=typo": lambda: _seconds([*train, "model=typo"], exit_code=2),
        "train --help": lambda: _seconds([*train, "--help"]),
    }
    rounds: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(starts + 1):
        for name, process in processes.items():
            rounds[name].append(process())
    counted = {name: each[1:] for name, each in rounds.items()}
    rows = [
        Row(name=name, rounds=each, compared=float(np.median(np.subtract(each, counted[IMPORTS]))))
        for name, each in counted.items()
    ]
    return Subject(
        title="Start-up, data cached",
        unit="s",
        comparison="difference_s",
        comparison_title="minus the imports, s",
        rows=rows,
    )


def _seconds(command: Sequence[str], *, exit_code: int = 0) -> float:
    start = time.time()
    output_of(command, exit_code=exit_code)
    return time.time() - start


def _seconds_to_first_step(overrides: Sequence[str]) -> float:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # W&B may still write
        start = time.time()
        return float(train_in_process(ExitAtFirstStep, Path(folder), *overrides).read_text(encoding="utf-8")) - start


def train_in_process(callback: type[Callback], folder: Path, *overrides: str) -> Path:
    """Train in a new process, with log_dir=`folder`; return the file that `callback` wrote."""
    path = folder / "measured.json"
    node = f"+callbacks.measure={{_target_:{callback.__module__}.{callback.__name__},path:{quoted(str(path))}}}"
    output_of([sys.executable, "-m", "vitexp", "train", *overrides, f"log_dir={quoted(str(folder))}", node])
    return path


def output_of(command: Sequence[str], *, exit_code: int = 0) -> str:
    """Return the stdout of a command. Raises ConfigError, with the last line of stderr, for any other exit code."""
    # Without the variables that vitexp sets for its child processes.
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("HYDRA_FULL_ERROR", "VITEXP_PLAIN_ERRORS")
    }
    ended = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**inherited, "WANDB_MODE": "offline"}, check=False
    )
    if ended.returncode != exit_code:
        [*_, last] = ["no message", *ended.stderr.strip().splitlines()]
        raise ConfigError(f"{shlex.join(command)} exited with code {ended.returncode}: {last}")
    return ended.stdout
