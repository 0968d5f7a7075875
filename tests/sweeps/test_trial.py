"""One trial: how it ends, what is recorded, who holds it, and what is left when its supervisor dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.fake_sweep import fake_trial
from tests.sweeps.processes import until, with_argument
from vitexp.runs.record import TRIAL_LOCK, NewerRecord
from vitexp.sweeps.engines.trial import Finished, Started, Trial, record_failure, run_trial, status
from vitexp.system.lock import Held, hold, is_held


def run(trial: Trial, *, retries: int = 0, timeout: float | None = None, **environment: str) -> Finished:
    started, finished = run_trial(trial, retries=retries, timeout=timeout, environment=environment, cwd=Path.cwd())
    assert isinstance(started, Started) and isinstance(finished, Finished)
    return finished


def starts(trial: Trial) -> int:
    """Return how many processes of the fake trainer have started."""
    file = trial.folder / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_completed_once_and_never_again(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a")
    first, second = run(trial, retries=3), run(trial, retries=3)
    assert (first.status, first.attempts, first.exit_code) == ("completed", 1, 0)
    assert (second.status, second.attempts, second.exit_code) == ("completed", 0, None)
    assert starts(trial) == 1


@pytest.mark.parametrize(
    ("end", "code", "error"),
    [
        ("crash", 1, "exit code 1: last words"),
        ("kill", 137, "killed by SIGKILL: last words"),
        ("silent", 0, "ended without a result: last words"),
        ("failed", 1, "its own words"),
    ],
)
def test_failures_are_tried_again_and_recorded(tmp_path: Path, end: str, code: int, error: str) -> None:
    trial = fake_trial(tmp_path / "a", f"end={end}")
    finished = run(trial, retries=2)
    assert (finished.status, finished.error, finished.exit_code) == ("failed", error, code)
    assert finished.attempts == starts(trial) == 3
    record = json.loads((trial.folder / "result.json").read_text())
    assert (record["status"], record["error"]) == ("failed", error)
    assert [attempt["exit_code"] for attempt in json.loads((trial.folder / "trial.json").read_text())] == [code] * 3


def test_bad_input_cannot_mend_itself(tmp_path: Path) -> None:
    finished = run(fake_trial(tmp_path / "a", "end=refuse"), retries=5)
    assert (finished.attempts, finished.exit_code) == (1, 2)
    assert finished.error == "exit code 2: vitexp: there is no key 'x'."


def test_a_second_attempt_may_succeed(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a", "end=crash", "until=1")
    finished = run(trial, retries=1)
    assert (finished.status, finished.error, finished.attempts) == ("completed", None, 2)


def test_the_last_line_is_of_the_last_attempt(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a", "end=crash")
    run(trial)
    mute = Trial(row="a", seed=0, overrides=(), folder=trial.folder, command=(sys.executable, "-c", "exit(3)"))
    assert run(mute).error == "exit code 3"


def test_a_command_that_does_not_exist_fails_the_trial(tmp_path: Path) -> None:
    finished = run(Trial(row="a", seed=0, overrides=(), folder=tmp_path / "a", command=("/nowhere/python",)))
    assert finished.status == "failed" and "No such file" in str(finished.error)


def test_a_folder_that_cannot_be_made_fails_the_trial(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finished = run(fake_trial(tmp_path / "file" / "a"))
    assert finished.status == "failed" and str(finished.error).startswith("NotADirectoryError")


def test_a_process_that_cannot_be_started_fails_the_trial(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a")
    *_, finished = run_trial(trial, retries=1, timeout=None, environment={}, cwd=tmp_path / "nowhere")
    assert isinstance(finished, Finished) and str(finished.error).startswith("FileNotFoundError")
    assert status(trial) == finished.status == "failed"


@pytest.mark.parametrize("end", ["hang", "deaf"])
def test_a_hang_ends_at_the_timeout(tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitexp.sweeps.engines.trial._PATIENCE_S", {signal.SIGINT: 0.3, signal.SIGTERM: 0.3})
    trial = fake_trial(tmp_path / "a", f"end={end}")
    finished = run(trial, timeout=0.5)
    assert (finished.status, finished.error) == ("failed", "did not end within engine.timeout=0.5 s: last words")
    assert finished.seconds < 5
    until(lambda: not with_argument(str(trial.folder)))


def test_a_record_that_says_running_is_taken_up(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a")
    trial.folder.mkdir()
    (trial.folder / "result.json").write_text('{"schema": 1, "status": "running", "error": null}')
    assert run(trial).status == "completed"


@pytest.mark.parametrize("text", ["", "[]", "null", '{"schema": 1', '{"schema": 1}'])
def test_a_damaged_record_is_replaced(tmp_path: Path, text: str) -> None:
    trial = fake_trial(tmp_path / "a")
    trial.folder.mkdir()
    (trial.folder / "result.json").write_text(text)
    (trial.folder / "trial.json").write_text(text)
    assert status(trial) is None
    assert run(trial).status == "completed"


def test_a_record_of_a_newer_version_is_kept(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a")
    trial.folder.mkdir()
    (trial.folder / "result.json").write_text('{"schema": 2}')
    with pytest.raises(NewerRecord, match=r"written by a newer version of vitexp \(schema 2\); update vitexp"):
        run(trial)
    assert (trial.folder / "result.json").read_text() == '{"schema": 2}'


def test_the_record_says_running_from_the_start(tmp_path: Path) -> None:
    """This holds even while the process is importing torch, and the record has every key that a table reads."""
    trial = Trial(row="a", seed=7, overrides=("x=1",), folder=tmp_path / "a", command=("sleep", "1"))
    thread = threading.Thread(target=run, args=[trial])
    thread.start()
    until(lambda: status(trial) == "running")
    record = json.loads((trial.folder / "result.json").read_text())
    assert (record["schema"], record["seed"], record["overrides"], record["metrics"]) == (1, 7, ["x=1"], None)
    thread.join()


def test_environment_and_threads_reach_the_process(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a")
    run(trial, OMP_NUM_THREADS="3", CUDA_VISIBLE_DEVICES="5")
    record = json.loads((trial.folder / "result.json").read_text())
    assert (record["threads"], record["span"][2]) == ("3", "5")


def test_two_supervisors_run_a_trial_once(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a", "seconds=0.5")
    ends: list[Any] = []
    threads = [threading.Thread(target=lambda: ends.append(run(trial))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert starts(trial) == 1
    assert sorted(end.attempts for end in ends) == [0, 0, 1]
    assert {end.status for end in ends} == {"completed"}


def test_the_lock_lives_as_long_as_the_process_that_inherited_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path, wait=False) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor])
    with pytest.raises(Held, match=f"process {os.getpid()} on"), hold(path, wait=False):
        pass
    child.kill()
    child.wait()
    with hold(path, wait=False):
        pass


def test_what_a_trial_leaves_running_ends_with_it(tmp_path: Path) -> None:
    command = ("sh", "-c", f"sh -c 'sleep 60; : {tmp_path}' &")
    trial = Trial(row="a", seed=0, overrides=(), folder=tmp_path / "a", command=command)
    run(trial)
    assert (trial.folder / "trial.json").exists()
    until(lambda: not with_argument(f": {tmp_path}"), seconds=5)


SUPERVISOR = """
import sys
from pathlib import Path
from tests.sweeps.fake_sweep import fake_trial
from vitexp.runs.record import TRIAL_LOCK
from vitexp.sweeps.engines.trial import run_trial
trial = fake_trial(Path(sys.argv[1]), *sys.argv[2:])
print(list(run_trial(trial, retries=0, timeout=None, environment={}, cwd=Path.cwd())))
"""


@pytest.mark.parametrize("end", ["completed", "deaf"])
def test_sigkill_of_the_supervisor_ends_the_trial(tmp_path: Path, end: str) -> None:
    trial = fake_trial(tmp_path / "a", "seconds=60", f"end={end}")
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(trial.folder), "seconds=60", f"end={end}"])
    until(lambda: starts(trial) == 1)
    supervisor.kill()
    supervisor.wait()
    until(lambda: not with_argument(str(trial.folder)))
    until(lambda: not is_held(trial.folder / TRIAL_LOCK))  # a process that was killed takes a moment to let go
    assert status(trial) == "running"  # no process was left to update it


def test_ctrl_c_lets_the_trial_say_so_itself(tmp_path: Path) -> None:
    trial = fake_trial(tmp_path / "a", "seconds=60")
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(trial.folder), "seconds=60"], stderr=-3)
    until(lambda: status(trial) == "running" and starts(trial) == 1)
    time.sleep(0.3)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(20) == -signal.SIGINT
    assert not with_argument(str(trial.folder))
    assert json.loads((trial.folder / "result.json").read_text())["error"] == "stopped from the keyboard"


def test_a_failure_of_the_supervisor_is_recorded_but_never_over_a_result(tmp_path: Path) -> None:
    lost, done = fake_trial(tmp_path / "lost"), fake_trial(tmp_path / "done")
    run(done)
    assert record_failure(lost, "the node is gone").status == status(lost) == "failed"
    assert record_failure(done, "the node is gone").status == status(done) == "completed"
