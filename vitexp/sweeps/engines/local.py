"""engine=local: one trial after the other, on this machine, with nothing else installed."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vitexp.errors import ConfigError
from vitexp.sweeps.engines import Engine, OnEvent, thread_limit
from vitexp.sweeps.engines.trial import Ready, Trial, run_trial
from vitexp.system.cores import available_cores


@dataclass(frozen=True, kw_only=True)
class LocalEngine(Engine):
    """Runs the trials one after the other."""

    def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
        """See Engine."""
        cpus = available_cores() if self.cpus_per_trial == "auto" else self.cpus_per_trial
        gpus = self._gpus()
        environment = {**thread_limit(cpus), "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        on_event(Ready(slots=1, where="this machine"))
        for trial in trials:
            for event in run_trial(
                trial, retries=self.retries, timeout=self.timeout, environment=environment, cwd=Path.cwd()
            ):
                on_event(event)

    def _gpus(self) -> list[str]:
        """The GPUs of every trial, as CUDA_VISIBLE_DEVICES names them."""
        there = _visible_gpus()
        number = min(1, len(there)) if self.gpus_per_trial == "auto" else math.ceil(self.gpus_per_trial)
        if number > len(there):
            raise ConfigError(
                f"engine.gpus_per_trial={self.gpus_per_trial}, but there are {len(there)} GPUs here; "
                "engine.gpus_per_trial=auto takes what there is."
            )
        return there[:number]


def _visible_gpus() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(index) for index, _ in enumerate(listed.stdout.splitlines())]
