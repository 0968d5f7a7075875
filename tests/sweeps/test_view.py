"""Progress of a running sweep, in a terminal and without one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from vitexp.sweeps.engines.trial import Finished, Ready, Started, Trial
from vitexp.sweeps.view import View

READY = Ready(slots=2, where="2 GPUs, 1 per trial")


def trial(folder: Path, number: int, *, accuracy: float | None = None) -> Trial:
    """Return trial `number`; it is completed if it has an accuracy."""
    made = Trial(row=f"row [{number}]", seed=number, overrides=(), folder=folder / str(number), command=())
    if accuracy is not None:
        complete(made, accuracy)
    return made


def complete(trial: Trial, accuracy: float) -> None:
    trial.folder.mkdir()
    record = {
        "schema": 1,
        "status": "completed",
        "metrics": {"val": {"accuracy": accuracy}, "test": {"accuracy": 0.99}},
    }
    (trial.folder / "result.json").write_text(json.dumps(record))


def started(trial: Trial, gpus: str = "") -> Started:
    return Started(trial=trial, host="node1", gpus=gpus)


def finished(trial: Trial, *, seconds: float = 60, error: str | None = None) -> Finished:
    status = "failed" if error else "completed"
    return Finished(trial=trial, status=status, error=error, attempts=2, exit_code=0, seconds=seconds)


def plain() -> Console:
    return Console(file=io.StringIO(), width=40, force_terminal=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def picture(view: View) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(view.display())
    return text(console)


def test_without_a_terminal_one_line_an_event(tmp_path: Path) -> None:
    trials = [trial(tmp_path, 0, accuracy=0.5), trial(tmp_path, 1), trial(tmp_path, 2)]
    with View("abc", trials, console=plain()) as view:
        view(READY)
        view(started(trials[1], "7"))
        complete(trials[1], 0.934)
        view(finished(trials[1]))
        view(started(trials[2]))
        view(finished(trials[2], error="killed by SIGKILL"))
    assert text(view.console).splitlines() == [
        "abc: 3 trials, 1 of them already completed; 2 at a time on 2 GPUs, 1 per trial",
        "started    row [1], seed 1 on node1, GPU 7",
        "completed  row [1], seed 1 after 1 min 00 s, validation accuracy 93.40%; 2 of 3 done, 0 running, 1 waiting",
        "started    row [2], seed 2 on node1",
        f"failed     row [2], seed 2 after 2 attempts: killed by SIGKILL; see {trials[2].folder}/trial.log",
        "abc: 2 of 3 trials completed, 1 failed, 0.0 s",
    ]


def test_the_picture_counts_and_names(tmp_path: Path) -> None:
    trials = [trial(tmp_path, 0, accuracy=0.5), *(trial(tmp_path, number) for number in range(1, 6))]
    view = View("abc", trials, console=plain())
    assert "starting the engine" in picture(view)
    view(READY)
    view(started(trials[1]))
    complete(trials[1], 0.4)
    view(finished(trials[1]))
    view(started(trials[2]))
    view(finished(trials[2], error="no"))
    view(started(trials[3], "0,1"))
    shown = picture(view)
    assert "2 of 6 done, 1 failed, 1 running, 2 waiting\n1 of 2 slots in use" in shown
    assert "best so far: row [0], seed 0 with 50.00% validation accuracy" in shown
    assert "row [3]" in shown and "node1, GPU 0,1" in shown
    assert "row [1]" not in shown


def test_many_running_trials_are_counted(tmp_path: Path) -> None:
    trials = [trial(tmp_path, number) for number in range(50)]
    view = View("abc", trials, console=plain())
    for each in trials:
        view(started(each))
    assert "and 34 more" in picture(view)


def test_the_estimate_takes_waiting_and_running_trials_into_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("vitexp.sweeps.view.time.monotonic", lambda: now[0])
    trials = [trial(tmp_path, number) for number in range(6)]
    view = View("abc", trials, console=plain())
    view(READY)
    assert view.remaining() is None
    for each in trials[:2]:
        view(started(each))
        complete(each, 0.5)
        view(finished(each, seconds=100))
    view(started(trials[2]))
    now[0] += 40
    view(started(trials[3]))
    # 60 and 100 s of the running ones, 200 s of the waiting ones, on two slots
    assert view.remaining() == pytest.approx(180)
    now[0] += 1000  # longer than expected: only the waiting ones can be estimated
    assert view.remaining() == pytest.approx(100)


def test_a_terminal_shows_the_picture_and_keeps_failures(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    trials = [trial(tmp_path, 0), trial(tmp_path, 1)]
    with View("abc", trials, console=console) as view:
        view(READY)
        view(started(trials[0]))
        view.live.refresh()
        view(finished(trials[0], error="exit code 1"))
    shown = text(console)
    assert "1 of 2 slots in use" in shown and "failed     row [0], seed 0 after 2 attempts: exit code 1" in shown
    assert shown.rstrip().endswith("abc: 0 of 2 trials completed, 1 failed, 0.0 s")


def test_a_completed_run_without_validation_accuracy_counts_too(tmp_path: Path) -> None:
    done = trial(tmp_path, 0)
    done.folder.mkdir()
    (done.folder / "result.json").write_text('{"schema": 1, "status": "completed", "metrics": null}')
    view = View("abc", [done], console=plain())
    assert view.counts() == "1 of 1 done, 0 running, 0 waiting" and view.best is None
