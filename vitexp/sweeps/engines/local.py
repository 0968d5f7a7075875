"""engine=local: one trial at a time on this machine, without extra packages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from vitexp.errors import ConfigError
from vitexp.sweeps.engines import Engine, OnEvent, thread_limit
from vitexp.sweeps.engines.trial import Ready, Trial, run_trial
from vitexp.sweeps.engines.warm import warm_process
from vitexp.system.cores import available_cores, visible_gpus
from vitexp.text import plural


class LocalEngine(Engine):
    """One trial at a time, on the first GPUs of this machine."""

    def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
        """Run all `trials`; see Engine."""
        cpus = available_cores() if self.cpus_per_trial == "auto" else self.cpus_per_trial
        gpus = self._gpus()
        environment = {**thread_limit(cpus), "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        warm = warm_process(thread_limit(cpus))
        on_event(Ready(slots=1, where="this machine"))
        for trial in trials:
            for event in run_trial(
                trial,
                retries=self.retries,
                timeout=self.timeout,
                environment=environment,
                cwd=Path.cwd(),
                warm=warm,
            ):
                on_event(event)

    def _gpus(self) -> list[str]:
        """Return the GPUs of a trial, as in CUDA_VISIBLE_DEVICES."""
        visible = visible_gpus()
        number = min(1, len(visible)) if self.gpus_per_trial == "auto" else math.ceil(self.gpus_per_trial)
        if number > len(visible):
            raise ConfigError(
                f"engine.gpus_per_trial={self.gpus_per_trial}, but this machine has {plural(len(visible), 'GPU')}; "
                "engine.gpus_per_trial=auto uses what is available."
            )
        return visible[:number]
