"""engine=ray: as many trials at a time as fit, on this machine or a cluster; Ray Core decides where and when."""

from __future__ import annotations

import math
import os
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from vitexp.errors import ConfigError, require
from vitexp.options import Doc, Field
from vitexp.sweeps.engines import Engine, OnEvent, thread_limit
from vitexp.sweeps.engines.trial import Finished, Ready, Started, Trial, record_failure, run_trial
from vitexp.sweeps.engines.warm import warm_process
from vitexp.system.cores import available_cores, visible_gpus

# Longer than a trial may take to stop.
_PATIENCE_S = 20.0

# Under `uv run`, Ray would pack the working directory and let uv install it again for its workers, which would leave
# the project's own environment pointing to a temporary copy.
_ALWAYS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}

# For a Ray instance of this sweep alone, read when ray is imported: all ports on 127.0.0.1. When memory runs out, the
# kernel ends the trial, which is recorded; Ray would end the worker and start over forever.
_PRIVATE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_memory_monitor_refresh_ms": "0"}


class RayEngine(Engine):
    """As many trials at a time as fit; each is a Ray task that requests its CPUs and GPUs."""

    def __init__(
        self,
        *,
        address: Annotated[
            str | None,
            Doc("null: start Ray for this sweep | auto: the instance running on this machine | host:port of a cluster"),
        ] = None,
        gpus: Annotated[
            Annotated[int, Field(ge=0, le=1024)] | None, Doc("GPUs of the Ray instance that is started; null: all")
        ] = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.address, self.gpus = address, gpus
        self.runs_here = address is None
        if self.gpus is not None and self.address is not None:
            raise ConfigError(
                f"engine.gpus={self.gpus} applies only if the sweep starts Ray (engine.address=null); the one "
                f"at {self.address} has its own."
            )

    def run(self, trials: Sequence[Trial], *, on_event: OnEvent) -> None:
        """Run all `trials`; see Engine."""
        if self.address is None:  # it imports everything while Ray starts
            here = {
                "CPU": float(available_cores()),
                "GPU": float(len(visible_gpus()) if self.gpus is None else self.gpus),
            }
            warm_process(thread_limit(self._share([here], len(trials))[0]))
        with self._connected() as ray:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            cpus, gpus = self._share(nodes, len(trials))
            on_event(Ready(slots=_slots(nodes, cpus, gpus), where=_described(nodes, cpus, gpus)))
            task = ray.remote(
                num_cpus=cpus,
                num_gpus=gpus,
                max_retries=-1,  # a lost node is not the trial's fault
                max_calls=0,  # otherwise a worker with a GPU would restart for every trial; ours never uses the GPU
            )(_run_on_node)
            limit = thread_limit(cpus)
            settings = {
                "retries": self.retries,
                "timeout": self.timeout,
                "cwd": Path.cwd(),
                "warm": warm_process(limit),
            }
            streams = {task.remote(trial, environment=limit, **settings): trial for trial in trials}
            try:
                while streams:
                    for stream in ray.wait(list(streams), num_returns=1)[0]:
                        event = _next(ray, stream, streams[stream])
                        if event is None:
                            del streams[stream]
                        else:
                            on_event(event)
            except BaseException:
                for stream in streams:
                    ray.cancel(stream)
                ray.wait([stream.completed() for stream in streams], num_returns=len(streams), timeout=_PATIENCE_S)
                raise

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Yield the ray package, connected to the cluster at `address`, or to an instance of this sweep alone."""
        if self.address is None:
            os.environ.update(_PRIVATE)
        os.environ.update(_ALWAYS)
        require("ray", needed_by="engine=ray", alternative="engine=local")
        import ray

        # Under /tmp, because the paths of Ray's sockets are limited to 107 characters.
        with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
            on_sigterm = signal.getsignal(signal.SIGTERM)
            try:
                self._init(ray, folder)
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, on_sigterm)  # ray.init has replaced it
                yield ray
            finally:
                ray.shutdown()

    def _init(self, ray: Any, folder: str) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address is None:
            here = {"num_cpus": available_cores(), "num_gpus": self.gpus, "include_dashboard": False}
            ray.init("local", _temp_dir=folder, **here, **quiet)
            return
        try:
            ray.init(self.address, **quiet)
        except (ConnectionError, ValueError) as error:
            raise ConfigError(
                f"engine.address={self.address}: cannot connect to Ray there; it is not running, or needs a token. "
                "engine.address=null starts one here."
            ) from error

    def _share(self, nodes: Sequence[Mapping[str, float]], trials: int) -> tuple[float, float]:
        """Return CPUs and GPUs per trial. Raises ConfigError if no node has that many."""
        has_gpu = [node for node in nodes if node.get("GPU")]
        gpus = self.gpus_per_trial if self.gpus_per_trial != "auto" else float(bool(has_gpu))
        cpus = self.cpus_per_trial if self.cpus_per_trial != "auto" else _fair_cpus(nodes, gpus, trials)
        if not _slots(nodes, cpus, gpus):
            raise ConfigError(
                f"no node has what a trial needs (GPUs: {gpus:g}, CPUs: {cpus:g}); the most per node are "
                f"GPUs: {max(node.get('GPU', 0) for node in nodes):g}, "
                f"CPUs: {max(node.get('CPU', 0) for node in nodes):g}. "
                "Lower engine.gpus_per_trial or engine.cpus_per_trial."
            )
        return cpus, gpus


def _run_on_node(
    trial: Trial, *, environment: dict[str, str], warm: str | None, **settings: Any
) -> Iterator[Started | Finished]:
    """Run a trial as a Ray task. Always two events, so that a node that takes over yields the same ones."""
    import ray

    if warm is not None and not Path(warm).exists():  # on another machine than the sweep
        warm = warm_process(environment)
    gpus = ray.get_runtime_context().get_accelerator_ids()["GPU"]
    environment = {**environment, "CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    yield from run_trial(trial, environment=environment, warm=warm, **settings)


def _next(ray: Any, stream: Any, trial: Trial) -> Started | Finished | None:
    """Return the next event of a trial; None after the last."""
    try:
        event: Started | Finished = ray.get(next(stream))
        return event
    except StopIteration:
        return None
    except ray.exceptions.RayError as error:  # the task failed, not the trial: perhaps vitexp is not installed there
        return record_failure(trial, str(error).strip().splitlines()[-1])


def _fair_cpus(nodes: Sequence[Mapping[str, float]], gpus: float, trials: int) -> float:
    """Return an equal share of a node's CPUs for the trials on its GPUs; without GPUs, of all CPUs for all trials."""
    if gpus:  # even a fraction of a core: too few cores must not keep a GPU idle
        share = min((node["CPU"] * gpus / node["GPU"] for node in nodes if node.get("GPU", 0) >= gpus), default=1)
        return math.floor(share) if share >= 1 else max(1, math.floor(share * 10_000)) / 10_000  # Ray's resolution
    cpus = [node.get("CPU", 0) for node in nodes]
    return max(1, min(max(cpus), sum(cpus) // trials))


def _slots(nodes: Iterable[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """Return how many trials run at a time on idle `nodes`; none uses parts of two GPUs."""
    slots = 0
    for node in nodes:
        by_cpu, available = int(node.get("CPU", 0) / cpus + 1e-9), int(node.get("GPU", 0))
        by_gpu = math.inf if gpus == 0 else available // gpus if gpus >= 1 else available * int(1 / gpus + 1e-9)
        slots += int(min(by_cpu, by_gpu))
    return slots


def _described(nodes: Sequence[Mapping[str, float]], cpus: float, gpus: float) -> str:
    kind, each = ("GPU", gpus) if gpus else ("CPU", cpus)
    of_nodes = f" of {len(nodes)} nodes" if len(nodes) > 1 else ""
    return f"{sum(node.get(kind, 0) for node in nodes):g} {kind}s{of_nodes}, {each:g} per trial"
