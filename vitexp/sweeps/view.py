"""Progress of a running sweep: a live display in a terminal, otherwise one line per event."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vitexp.runs.record import read_result
from vitexp.sweeps.engines.trial import Event, Finished, Ready, Started, Trial, status
from vitexp.system.disk import typed
from vitexp.system.terminal import plain_console
from vitexp.text import duration, plural

_ROWS = 16  # running trials that are listed; any others are only counted


class View:
    """Show the events of run_trials: `with View(name, trials) as view: run_trials(..., on_event=view)`.

    trials: all trials of the sweep, including those completed before.
    """

    def __init__(self, name: str, trials: Sequence[Trial], *, console: Console | None = None) -> None:
        self.name, self.console = name, console or plain_console()
        self.total = len(trials)
        self.completed = self.failed = 0
        self.running: dict[Trial, tuple[Started, float]] = {}  # and when it started, by our clock
        self.slots, self.where = 0, ""
        self.seconds: list[float] = []  # durations of the trials completed in this session
        self.best: tuple[float, Trial] | None = None
        self.start = time.monotonic()
        for trial in trials:
            if status(trial) == "completed":
                self._count_completed(trial)
        self.before = self.completed
        self.live = Live(get_renderable=self.display, console=self.console, refresh_per_second=2, transient=True)

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        self._say(self.summary())

    def __call__(self, event: Event) -> None:
        if isinstance(event, Ready):
            self.slots, self.where = event.slots, event.where
            before = f", {self.before} of them already completed" if self.before else ""
            self._say(f"{self.name}: {plural(self.total, 'trial')}{before}; {self.slots} at a time on {self.where}")
        elif isinstance(event, Started):
            self.running[event.trial] = event, time.monotonic()
            if not self.console.is_terminal:
                self._say(f"started    {_label(event.trial)} on {_place(event)}")
        else:
            self._finished(event)

    def _finished(self, event: Finished) -> None:
        trial = event.trial
        self.running.pop(trial, None)
        if event.status == "completed":
            self.seconds.append(event.seconds)
            accuracy = self._count_completed(trial)
            if not self.console.is_terminal:
                result = "" if accuracy is None else f", validation accuracy {accuracy:.2%}"
                self._say(f"completed  {_label(trial)} after {duration(event.seconds)}{result}; {self.counts()}")
        else:  # in a terminal too: the line stays above the display
            self.failed += 1
            attempts = plural(event.attempts, "attempt")
            self._say(f"{event.status:<10} {_label(trial)} after {attempts}: {event.error}; see {typed(trial.log)}")

    def _count_completed(self, trial: Trial) -> float | None:
        """Count a completed trial and return its validation accuracy, if it has one."""
        self.completed += 1
        metrics = read_result(trial.folder).get("metrics") or {}
        accuracy: float | None = (metrics.get("val") or {}).get("accuracy")
        if accuracy is not None and (self.best is None or accuracy > self.best[0]):
            self.best = accuracy, trial
        return accuracy

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    @property
    def waiting(self) -> int:
        """Number of trials that have not started."""
        return self.total - self.completed - self.failed - len(self.running)

    def counts(self) -> str:
        """Return how many trials are done, failed, running and waiting."""
        failed = f"{self.failed} failed, " if self.failed else ""
        return f"{self.completed} of {self.total} done, {failed}{len(self.running)} running, {self.waiting} waiting"

    def summary(self) -> str:
        """Return the last line."""
        failed = f", {self.failed} failed" if self.failed else ""
        elapsed = duration(time.monotonic() - self.start)
        return f"{self.name}: {self.completed} of {self.total} trials completed{failed}, {elapsed}"

    def remaining(self) -> float | None:
        """Return the estimated seconds until the end, from the mean duration of trials; None before the first ends."""
        if not self.seconds or not self.slots:
            return None
        mean, now = sum(self.seconds) / len(self.seconds), time.monotonic()
        started = [max(mean - (now - since), 0.0) for _, since in self.running.values()]
        return max((sum(started) + mean * self.waiting) / self.slots, max(started, default=0.0))

    def display(self) -> RenderableType:
        """Return what the terminal shows."""
        elapsed, remaining = duration(time.monotonic() - self.start), self.remaining()
        times = f"{elapsed} elapsed" + ("" if remaining is None else f", about {duration(remaining)} remaining")
        slots = f"{len(self.running)} of {self.slots} slots in use" if self.slots else "starting the engine"
        bar = Table.grid(padding=(0, 1))
        ended = self.completed + self.failed
        bar.add_row(ProgressBar(total=max(self.total, 1), completed=ended, width=30), self.counts())
        parts: list[RenderableType] = [bar, Text(f"{slots}, {times}")]
        if self.best is not None:
            parts.append(Text(f"best so far: {_label(self.best[1])} with {self.best[0]:.2%} validation accuracy"))
        if self.running:
            parts.append(self._table())
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for heading in ("running", "", "on"):
            table.add_column(heading)
        table.add_column("for", justify="right")
        now = time.monotonic()
        for trial, (event, since) in list(self.running.items())[:_ROWS]:
            table.add_row(Text(trial.row), trial.repetition, _place(event), duration(now - since))
        if len(self.running) > _ROWS:
            table.add_row(f"and {len(self.running) - _ROWS} more")
        return table


def _label(trial: Trial) -> str:
    return f"{trial.row}, {trial.repetition}"


def _place(event: Started) -> str:
    return f"{event.host}, GPU {event.gpus}" if event.gpus else event.host
