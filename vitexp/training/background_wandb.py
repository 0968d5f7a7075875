"""The logger of Weights & Biases, which never delays or ends a training."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from vitexp.errors import reason
from vitexp.metrics import METRICS
from vitexp.system.disk import note, tolerating
from vitexp.system.wandb_mode import resolve_wandb_mode
from vitexp.training.faults import Nothing, is_on, turning_off
from vitexp.training.metrics_file import Row, rows_before

log = logging.getLogger(__name__)

_TIMEOUT_S = 30.0  # for opening a run online, which usually takes two, and for the upload after its end
_NOTICE_S = 3.0  # how long to wait for W&B without saying so
_LIMIT_S = 60.0  # for closing a run; its service may take 10 s more after each timeout
_ROOM = 1 << 16  # bytes; a disk with less free space counts as full
# Characters that W&B takes, less those of seed and fold, which are also in the name.
_NAME_LENGTH, _TAG_LENGTH, _TITLE_LENGTH = 100, 64, 63


class BackgroundWandbLogger(WandbLogger):
    """A WandbLogger that leaves everything to a thread of its own, so that training never waits for W&B.

    mode: "online", "offline", or "auto" (online if logged in). A run that cannot be opened online is recorded offline.
    If wandb fails later, another run is opened offline, with the rows of metrics.csv.

    row: of a sweep's table, for its trials; names the run instead of `name`. weights: whether `log_weights` does
    anything; "auto": if the run is online.

    Only code that uses `experiment` waits until the run is open.
    """

    title = "W&B"

    def __init__(
        self, *, mode: str, row: str | None = None, weights: bool | Literal["auto"] = "auto", **arguments: Any
    ) -> None:
        timeouts = {"init_timeout": _TIMEOUT_S, "finish_timeout": _TIMEOUT_S, "finish_timeout_raises": True}
        super().__init__(settings={"silent": True, "console": "off", **timeouts}, **arguments)
        self._wandb_init.pop("anonymous", None)  # Lightning always passes it, and wandb warns about it
        self._mode, self._row, self._weights = mode, row, weights
        self._opening: Future[Any] | None = None
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # Not a ThreadPoolExecutor: Python would wait for its threads at exit, even for one that waits forever.
        self._thread = threading.Thread(target=self._work, name="vitexp-wandb", daemon=True)
        self._ended = threading.Event()  # not Thread.join, which is wrong about the thread after a signal
        self._lossy = False  # the disk was full at some point
        self._given_up = False
        self._refused = False  # whether wandb has failed to take an extra
        self._logged_again = 0  # how often the rows of metrics.csv were logged again
        self._name_without_seed = (row or arguments["name"])[:_NAME_LENGTH]
        self._monitor, self._direction = "val/loss", "min"
        self._best: tuple[float, float] | None = None  # of the monitored metric; with the sign that makes more better
        self._summary: dict[str, Any] = {}

    @rank_zero_only
    def open(
        self,
        config: dict[str, Any],
        *,
        earlier: Sequence[Row],
        job_type: str = "train",
        tags: Sequence[str] = (),
        monitor: tuple[str, str] = ("val/loss", "min"),
    ) -> None:
        """Start opening the run with `config`. earlier: the rows that it logged before it was interrupted.

        tags: in addition to those of the logger. monitor: the metric whose best epoch is summarized, and "min" or
        "max".
        """
        name = f"{self._name_without_seed}, seed {config['seed']}"
        if (data := config.get("data", {})).get("folds") is not None:
            name += f", fold {data['fold']}"
        unique = dict.fromkeys([*(self._wandb_init.get("tags") or ()), *(tag[:_TAG_LENGTH] for tag in tags if tag)])
        self._wandb_init.update(config=config, name=name, job_type=job_type, tags=list(unique))
        self._monitor, self._direction = monitor
        # Tables wait there until they are uploaded. Not in the home folder, where nobody removes them.
        os.environ.setdefault("WANDB_DATA_DIR", str(Path(self.save_dir or ".").absolute() / "wandb"))
        os.environ.setdefault("WANDB_SILENT", "true")  # the settings above do not silence its login
        self._opening = Future()
        self._tasks.put(partial(self._open, self._opening, earlier))
        self._thread.start()

    def _work(self) -> None:
        for task in iter(self._tasks.get, None):
            if is_on(self) and not self._given_up:
                with turning_off(self):
                    try:
                        task()
                    except Exception:
                        if not self._given_up:  # else it was killed
                            raise
        if not is_on(self):
            _forget_service()  # otherwise the next run in this process would log to the open one
        self._ended.set()

    def _open(self, opening: Future[Any], earlier: Sequence[Row]) -> None:
        try:
            opening.set_result(self._opened(earlier))
        except BaseException as error:
            opening.set_exception(error)
            raise

    def _opened(self, earlier: Sequence[Row]) -> Any:
        # For this run only; Lightning's own `offline` affects the whole process.
        try:
            self._wandb_init["mode"] = resolve_wandb_mode(self._mode)
            run = self._started(earlier)
        except Exception as error:
            if self._given_up:
                raise
            # Offline, its service may have been killed.
            failure = "failed" if self._wandb_init.get("mode") == "offline" else "cannot be reached"
            log.warning("W&B %s (%s); this run is recorded offline", failure, reason(error))
            _kill_service()  # it may not react, and has nothing of a run that was not opened
            _forget_service()  # it holds on to the id of the run
            self._experiment, self._wandb_init["mode"] = None, "offline"
            run = self._started(earlier)
        if run.offline:
            # Uploading the files of a resumed run replaces the earlier ones (wandb/wandb#5865), so log all rows again.
            _log_rows(run, earlier)
        return run

    def _started(self, earlier: Sequence[Row]) -> Any:
        """Start the run, whose summary holds the best and the last value of each metric, and the best epoch."""
        run = super().experiment
        # `wandb agent` optimizes a plain number, which a metric with several summaries is not.
        if "WANDB_SWEEP_ID" not in os.environ:
            best = {f"val/{name}": each.direction for name, each in METRICS.items()} | {self._monitor: self._direction}
            for name, direction in best.items():
                axis = {"step_metric": "trainer/global_step", "step_sync": True}  # as Lightning defines all metrics
                run.define_metric(name, summary=f"{direction},last", **axis)
        for row in earlier:
            self._is_best(row)
        run.summary.update(self._summary)
        return run

    def _is_best(self, row: Row) -> bool:
        """Return whether the monitored metric is better than ever, and note the epoch; ties as in BestCheckpoint."""
        value = row.get(self._monitor, math.nan) * (1 if self._direction == "max" else -1)
        candidate = (value, -row.get("val/loss", math.inf))
        is_best = "epoch" in row and not math.isnan(value) and (self._best is None or candidate > self._best)
        if is_best:
            self._best = candidate
            self._summary["best/epoch"] = int(row["epoch"]) + 1  # counted from 1, as everywhere in vitexp
        return is_best

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; until it is open, a placeholder that waits for it at the first access."""
        if self._opening is None:
            return super().experiment
        return self._opening.result() if self._opening.done() else _Awaited(self._opening)

    @rank_zero_only
    def say_where(self) -> None:
        """Log the address of the run, or the command that uploads it, as soon as it is open."""
        if self._opening is not None:
            self._opening.add_done_callback(_say_where)

    @contextmanager
    def _tolerating(self) -> Iterator[None]:
        """Tolerate a full disk while the block logs scalars and images."""
        with tolerating("wandb"):
            yield
        self._check_room()

    def _check_room(self) -> None:
        """Note a full disk, on which the service of wandb silently gives up when it writes."""
        if shutil.disk_usage(self.save_dir or ".").free < _ROOM:
            self._lossy = True
        if self._lossy:
            note("wandb", os.strerror(errno.ENOSPC))

    @contextmanager
    def _recovering(self) -> Iterator[None]:
        """If wandb fails in the block, open the run again, offline, and log the rows of metrics.csv again.

        Images that were waiting or logged in the block are lost. A second failure is raised.
        """
        try:
            with self._tolerating():
                yield
        except Exception as error:
            if self._mode == "recovered" or self._given_up:
                raise
            log.warning("W&B failed (%s); this run is recorded offline", reason(error))
            _forget_service()
            self._mode, self._experiment, self._wandb_init["mode"] = "recovered", None, "offline"
            rows = rows_before(Path(self.save_dir or ".") / "metrics.csv", sys.maxsize)
            run = self._started(rows)
            if rows:
                self._logged_again += 1
                _log_rows(run, rows)
            self._opening = Future()
            self._opening.set_result(run)

    def _later(self, method: Callable[..., None], *arguments: Any) -> None:
        """Call `method` in the thread; at once without one, because the run was not opened with `open`."""
        if self._opening is None:
            method(*arguments)
            return

        self._check_room()  # here too, because the thread may be late
        before = self._logged_again

        def task() -> None:
            if before == self._logged_again:  # else these scalars are among the rows
                with self._recovering():
                    method(*arguments)

        self._tasks.put(task)

    @rank_zero_only
    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._later(self._log_metrics, dict(metrics), step)

    def _log_metrics(self, metrics: dict[str, Any], step: int | None) -> None:
        super().log_metrics(metrics, step)
        if self._is_best(metrics):
            self.experiment.summary.update(self._summary)

    @rank_zero_only
    def summarize(self, values: dict[str, Any]) -> None:
        """Add `values` to the summary of the run."""
        self._summary.update(values)
        self._later(lambda: self.experiment.summary.update(self._summary))

    def log_chart(self, name: str, chart: Any) -> None:
        """Log a chart of wandb.plot as `figures/name`."""
        self.log_extra(f"the chart {name}", lambda run: run.log({f"figures/{name}": chart}))

    @rank_zero_only
    def log_weights(self, path: Path, *, aliases: Sequence[str]) -> None:
        """Log the file as a version of the artifact named like the run without its seed."""

        def write(run: Any) -> None:
            if self._weights is False or (self._weights == "auto" and run.offline):
                return
            import wandb

            name = re.sub(r"[^\w.-]+", "-", self._name_without_seed, flags=re.ASCII)
            artifact = wandb.Artifact(name, type="model")
            # Not copied, because nothing changes it later.
            artifact.add_file(str(path), policy="immutable", skip_cache=True)
            run.log_artifact(artifact, aliases=list(aliases))

        self.log_extra(path.name, write)

    @rank_zero_only
    def log_code(self, files: Mapping[str, Path]) -> None:
        """Log files of code, by the names they get, where W&B shows the code of the run."""

        def write(run: Any) -> None:
            if run.settings.disable_code:
                return
            with TemporaryDirectory() as folder:  # log_code takes everything in a folder
                for name, path in files.items():
                    copy = Path(folder, name)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, copy)
                run.log_code(folder, include_fn=lambda path: True)

        self.log_extra("the code", write)

    @rank_zero_only
    def log_extra(self, what: str, write: Callable[[Any], None]) -> None:
        """Let `write` add to the run, in the thread, what the run can do without.

        wandb asks the server about it, which may take 20 s to fail. Therefore the first failure ends all extras.
        """

        def task() -> None:
            if self._refused:
                return
            try:
                with self._tolerating():
                    write(self.experiment)
            except Exception as error:
                self._refused = True
                if not self._given_up:
                    log.warning("W&B did not take %s (%s); the run continues without such extras", what, reason(error))

        self._tasks.put(task)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        self._later(super().log_hyperparams, params)

    @rank_zero_only
    def close(self, *, failed: bool, error: str | None = None) -> None:
        """Close the run, if it was opened, as finished or failed, so that the next run in this process gets its own.

        error: why a trial of a sweep failed, for an alert.

        Returns after about 30 s at most if uploading takes longer, and after a minute if wandb does not react at all.
        """
        if self._opening is None:
            return
        if error is not None and self._row is not None:
            title = f"{self._wandb_init['name']} failed"[-_TITLE_LENGTH:]
            self.log_extra("an alert", lambda run: run.alert(title, error, level="ERROR"))
        self._tasks.put(partial(self._finish, failed))
        self._tasks.put(None)
        try:
            self._ended.wait(_NOTICE_S)
            if not self._ended.is_set():
                log.info("waiting at most %.0f s for W&B to upload the run; Ctrl-C stops the wait", _TIMEOUT_S)
                self._ended.wait(_LIMIT_S)
            if not self._ended.is_set():
                _kill_service()
                self._ended.wait(_LIMIT_S / 3)  # it records the run offline
        finally:
            if not self._ended.is_set():
                self._give_up()

    def _finish(self, failed: bool) -> None:
        assert self._opening is not None
        run = self._opening.result()
        with self._recovering():
            try:
                run.finish(exit_code=int(failed))
            except TimeoutError:
                _forget_service()  # waits until it has ended
            else:
                if run.offline or not _is_incomplete(run):
                    return
            log.warning("W&B did not receive the whole run; %s uploads it later", _sync(run))
            return
        self._opening.result().finish(exit_code=int(failed))  # the run that was opened instead

    def _give_up(self) -> None:
        """Leave what was not uploaded to `wandb sync`."""
        self._given_up = True
        opening = self._opening
        if opening is not None and opening.done() and opening.exception() is None:
            log.warning("W&B did not receive the whole run; %s uploads it later", _sync(opening.result()))
        else:
            log.warning("W&B did not receive the run")
        _leave_service()


class _Awaited:
    """Placeholder for the run of a Future, because Lightning touches every logger's run before training.

    If the run cannot be opened, it accepts every call: the logger has been turned off, with a warning.
    """

    def __init__(self, opening: Future[Any]) -> None:
        self._opening = opening

    def __getattr__(self, name: str) -> Any:
        run = Nothing() if self._opening.exception() else self._opening.result()
        return getattr(run, name)


def _log_rows(run: Any, rows: Sequence[Row]) -> None:
    for row in rows:
        scalars = {name: value for name, value in row.items() if name != "step"}
        run.log({**scalars, "trainer/global_step": row["step"]})


def _sync(run: Any) -> str:
    """Return the command that uploads `run`."""
    return f"wandb sync {shlex.quote(str(Path(run.dir).parent))}"


def _is_incomplete(run: Any) -> bool:
    """Return whether the service gave up uploading `run`, which only its log says: its fatal errors have this level."""
    with suppress(OSError):
        return '"level":"ERROR+4"' in Path(run.settings.log_internal).read_text(encoding="utf-8")
    return False


def _kill_service() -> None:
    """Kill the service of wandb, which does not react. It loses what it has not written yet."""
    from wandb.sdk import wandb_setup

    with suppress(AttributeError):  # no service, or another version of wandb
        wandb_setup.singleton()._connection._proc._process.kill()  # type: ignore[union-attr]


def _leave_service() -> None:
    """Leave the service of wandb alone. It writes and uploads what it has, and ends some time after this process."""
    import wandb
    from wandb.sdk import wandb_setup

    with suppress(AttributeError, TypeError):
        wandb_setup.singleton()._connection._cleanup()  # type: ignore[union-attr,misc]  # do not wait for it at exit
    wandb.run = None


def _forget_service() -> None:
    """Make wandb forget its service, which may have ended, and the open run; the next run starts another service."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()
    wandb.run = None
    os.environ.pop("WANDB_SERVICE", None)


def _say_where(opening: Future[Any]) -> None:
    if opening.exception() is None:
        run = opening.result()
        upload = f"offline; to upload this run:\n          {_sync(run)}"
        log.info("wandb     %s", upload if run.offline else run.url)
