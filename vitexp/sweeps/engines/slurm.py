"""engine=slurm: every trial is a job of one SLURM array, submitted through submitit."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vitexp.errors import ConfigError, require
from vitexp.sweeps.engines import Engine, OnEvent, thread_limit
from vitexp.sweeps.engines.trial import Finished, Ready, Started, Trial, record_failure, run_trial

_POLL_S = 0.5
# To Lightning this name means: no process was started by srun for every device. The trial starts them itself.
_NOT_SRUN = {"SLURM_JOB_NAME": "bash"}


@dataclass(frozen=True, kw_only=True)
class SlurmEngine(Engine):
    """Submits all trials at once, and watches the jobs; ending it cancels them."""

    cluster: str  # submitit's: slurm, or local for tests
    parameters: Mapping[str, Any]  # of submitit.AutoExecutor.update_parameters

    def __post_init__(self) -> None:
        super().__post_init__()
        gpus, cpus = self.gpus_per_trial, self.cpus_per_trial
        if isinstance(gpus, str) or isinstance(cpus, str) or gpus != int(gpus):
            raise ConfigError(
                f"engine=slurm needs whole numbers in engine.gpus_per_trial={gpus} and engine.cpus_per_trial={cpus}: "
                "what a job asks for."
            )

    def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
        """See Engine."""
        require("submitit", needed_by="engine=slurm", alternative="engine=local")
        import submitit

        options = {"cpus_per_task": self.cpus_per_trial, "gpus_per_node": self.gpus_per_trial, **self.parameters}
        try:
            executor = submitit.AutoExecutor(folder=trials[0].folder.parent / "slurm", cluster=self.cluster)
            executor.update_parameters(**options)
        except (RuntimeError, NameError, ValueError, TypeError) as error:  # no SLURM here; an unknown parameter
            raise ConfigError(f"engine=slurm: {str(error).strip().splitlines()[0].rstrip('.')}.") from error
        run = partial(
            _run_in_job,
            retries=self.retries,
            timeout=self.timeout,
            environment={**thread_limit(float(self.cpus_per_trial)), **_NOT_SRUN},
            cwd=Path.cwd(),
        )
        jobs = dict(zip(executor.map_array(run, trials), trials, strict=True))
        on_event(Ready(slots=len(jobs), where=f"{self.cluster}, as many at once as it grants"))
        try:
            _watch(jobs, on_event)
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise


def _run_in_job(trial: Trial, **settings: Any) -> Finished:
    *_, finished = run_trial(trial, **settings)
    assert isinstance(finished, Finished)
    return finished


def _watch(jobs: dict[Any, Trial], on_event: OnEvent) -> None:
    """Tell of all `jobs` until none is left in it."""
    started = set()
    while jobs:
        for job, trial in list(jobs.items()):
            ended = job.done()
            if job not in started and (ended or job.state == "RUNNING"):
                started.add(job)
                on_event(Started(trial=trial, host=f"job {job.job_id}", gpus=None))
            if ended:
                del jobs[job]
                error = job.exception()  # of the job; a failed trial is none
                on_event(job.result() if error is None else record_failure(trial, str(error).strip().splitlines()[-1]))
        time.sleep(_POLL_S)
