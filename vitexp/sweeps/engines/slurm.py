"""engine=slurm: every trial is a job of one SLURM job array, submitted with submitit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from vitexp.errors import ConfigError, require
from vitexp.options import Doc, Field
from vitexp.sweeps.engines import Engine, OnEvent, thread_limit
from vitexp.sweeps.engines.trial import Finished, Ready, Started, Trial, record_failure, run_trial

_POLL_S = 0.5


class SlurmEngine(Engine):
    """All trials as one job array, submitted together and monitored; an exception cancels them."""

    def __init__(
        self,
        *,
        cluster: Annotated[str, Doc("slurm, or local: all jobs together on this machine, for tests")] = "slurm",
        gpus_per_trial: Annotated[int, Field(ge=0, le=1024), Doc("GPUs of a job")] = 1,
        cpus_per_trial: Annotated[int, Field(ge=1, le=4096), Doc("cores and threads of a job")] = 8,
        parameters: Annotated[
            dict[str, Any] | None, Doc("parameters of submitit.AutoExecutor: timeout_min, mem_gb, slurm_partition, ...")
        ] = None,
        **common: Any,
    ) -> None:
        super().__init__(gpus_per_trial=gpus_per_trial, cpus_per_trial=cpus_per_trial, **common)
        self.cluster, self.parameters = cluster, parameters or {}
        self.runs_here = cluster == "local"

    def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
        """Run all `trials`; see Engine."""
        require("submitit", needed_by="engine=slurm", alternative="engine=local")
        import submitit

        options = {"cpus_per_task": self.cpus_per_trial, "gpus_per_node": self.gpus_per_trial, **self.parameters}
        try:
            executor = submitit.AutoExecutor(folder=trials[0].folder.parent / "slurm", cluster=self.cluster)
            executor.update_parameters(**options)
        except (RuntimeError, NameError, ValueError, TypeError) as error:  # no SLURM, or an unknown parameter
            raise ConfigError(f"engine=slurm: {str(error).strip().splitlines()[0].rstrip('.')}.") from error
        run = partial(
            _run_in_job,
            retries=self.retries,
            timeout=self.timeout,
            environment=thread_limit(float(self.cpus_per_trial)),
            cwd=Path.cwd(),
        )
        jobs = dict(zip(executor.map_array(run, trials), trials, strict=True))
        on_event(Ready(slots=len(jobs), where=f"{self.cluster}, as many at a time as it grants"))
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
    """Report the events of all `jobs` until none is left."""
    started = set()
    while jobs:
        for job, trial in list(jobs.items()):
            ended = job.done()
            if job not in started and (ended or job.state == "RUNNING"):
                started.add(job)
                on_event(Started(trial=trial, host=f"job {job.job_id}", gpus=None))
            if ended:
                del jobs[job]
                error = job.exception()  # of the job; a failed trial is not an exception
                on_event(job.result() if error is None else record_failure(trial, str(error).strip().splitlines()[-1]))
        time.sleep(_POLL_S)
