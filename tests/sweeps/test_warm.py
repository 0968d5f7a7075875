"""Trials forked from a warm process: what they are given, how they end, and what happens without the warm process."""

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

from tests.conftest import CONF, TINY, result
from tests.sweeps.fake_sweep import fake_trial
from tests.sweeps.processes import of_session, until
from vitexp.sweeps.engines.trial import Finished, Started, Trial, run_trial
from vitexp.sweeps.engines.warm import TRAIN, Forked, _can_fork, _servers, warm_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trials are forked on Linux only")
LIMIT = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def warm() -> str:
    address = warm_process(LIMIT)
    assert address is not None
    return address


def trial(folder: Path, *overrides: str) -> Trial:
    given = (f"log_dir={folder.parents[1]}", f"name={folder.parent.name}", f"run_id={folder.name}", "resume=auto")
    words = (*TINY, "logger=csv", "callbacks=none", *given, *overrides)
    return Trial(row="a", seed=0, overrides=words, folder=folder, command=(*TRAIN, *words))


def run(
    trial: Trial, warm: str | None, *, retries: int = 0, timeout: float | None = None, **environment: str
) -> Finished:
    events = run_trial(
        trial, retries=retries, timeout=timeout, environment={**LIMIT, **environment}, cwd=CONF.parent, warm=warm
    )
    started, finished = events
    assert isinstance(started, Started) and isinstance(finished, Finished)
    return finished


def failing(how: str, path: Path | str = "") -> str:
    return f"+callbacks.fails={{_target_: tests.failing.Alone, how: {how}, path: '{path}'}}"


@pytest.mark.slow
def test_a_forked_trial_is_what_a_fresh_process_would_be(warm: str, tmp_path: Path) -> None:
    given: list[dict[str, Any]] = []
    seconds, weights = [], []
    for name, address in (("fresh", None), ("again", None), ("forked", warm)):
        folder = tmp_path / name / "sweep" / "run"
        start = time.monotonic()
        ended = run(trial(folder, failing("record", tmp_path / "given")), address, CUDA_VISIBLE_DEVICES="", MINE="a b")
        seconds.append(time.monotonic() - start)
        assert ended.status == "completed", (folder / "trial.log").read_text()
        given.append(json.loads((tmp_path / "given").read_text().replace(str(tmp_path / name), "HERE")))
        weights.append((folder / "model.safetensors").read_bytes())
        assert "leaked" not in (folder / "trial.log").read_text()
    assert given[0] == given[2]
    assert given[0]["environment"]["MINE"] == "a b"
    assert weights[0] == weights[1] == weights[2]
    assert seconds[2] < seconds[1] / 2


@pytest.mark.parametrize(
    ("how", "code", "error"),
    [
        ("kill", 137, "killed by SIGKILL"),
        ("raise", 1, "ValueError: enough"),
        ("hang", None, "did not end within engine.timeout=6 s"),
    ],
)
def test_the_end_of_a_trial_is_recorded_and_the_next_one_starts(
    warm: str, tmp_path: Path, how: str, code: int | None, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitexp.sweeps.engines.trial._PATIENCE_S", {signal.SIGINT: 0.5, signal.SIGTERM: 0.5})
    folder = tmp_path / "sweep" / how
    ended = run(trial(folder, failing(how)), warm, timeout=6 if how == "hang" else None)
    assert (ended.status, result(folder)["status"]) == ("failed", "failed")
    assert str(ended.error).startswith(error)
    assert code is None or ended.exit_code == code
    assert run(trial(tmp_path / "sweep" / "next"), warm).status == "completed"


def test_invalid_input_keeps_its_exit_code_and_sentence(warm: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "run"
    ended = run(trial(folder, "model.num_heads=5"), warm, retries=3)
    assert (ended.exit_code, ended.attempts) == (2, 1)
    assert str(ended.error).startswith("exit code 2: vitexp: model.num_heads=5 does not divide")


def test_a_killed_supervisor_ends_its_forked_trial(warm: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / "run"
    this = trial(folder, failing("hang"))
    code = (
        "from pathlib import Path; from vitexp.sweeps.engines.trial import *;"
        f"t = Trial(row='a', seed=0, overrides=(), folder=Path({str(folder)!r}), command={this.command!r});"
        f"list(run_trial(t, retries=0, timeout=None, environment={{}}, cwd=Path({str(CONF.parent)!r}), warm={warm!r}))"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], cwd=CONF.parent)
    until(lambda: (folder / ".lock").exists() and bool((folder / ".lock").read_text()))
    leader = os.getsid(int((folder / ".lock").read_text().split()[1]))
    assert len(of_session(leader)) == 3
    supervisor.kill()
    supervisor.wait()
    until(lambda: not of_session(leader))
    assert run(trial(tmp_path / "sweep" / "next"), warm).status == "completed"


@pytest.mark.slow
def test_trials_outlive_the_warm_process_and_do_without_it(tmp_path: Path) -> None:
    environment = {**LIMIT, "MINE": "another warm process"}
    address = warm_process(environment)
    assert address is not None
    assert warm_process(environment) == address
    folder, ended = tmp_path / "sweep" / "run", []
    long = trial(folder, "trainer.max_epochs=60")
    thread = threading.Thread(target=lambda: ended.append(run(long, address)))
    thread.start()
    until(lambda: bool(list(folder.glob("checkpoints/*"))), seconds=60)
    server = next(process for process, where in _servers.values() if where == address)
    server.kill()
    server.wait()
    thread.join()
    assert (ended[0].status, ended[0].attempts) == ("completed", 1)
    assert run(trial(tmp_path / "sweep" / "next"), address).status == "completed"  # in a fresh process
    assert warm_process(environment) != address


@pytest.mark.slow
def test_the_warm_process_ends_with_its_owner_and_leaves_nothing() -> None:
    code = "from vitexp.sweeps.engines.warm import *; import vitexp.sweeps.engines.warm as w; a = warm_process({});"
    code += "print(a, next(iter(w._servers.values()))[0].pid)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=CONF.parent)
    address, pid = ended.stdout.split()
    until(lambda: not Path(f"/proc/{pid}").exists(), seconds=60)
    assert not Path(address).parent.exists()


def test_without_a_warm_process_a_trial_starts_by_itself(tmp_path: Path) -> None:
    nobody = {"output": 1, "lock": 1, "env": {}, "cwd": tmp_path}
    assert Forked.start(str(tmp_path / "nowhere"), [], **nobody) is None  # type: ignore[arg-type]
    ended = run(fake_trial(tmp_path / "a"), str(tmp_path / "nowhere"))
    assert (ended.status, ended.exit_code) == ("completed", 0)


def test_a_process_with_threads_is_not_forked() -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    import torch  # noqa: F401 - as in a warm process

    assert not _can_fork()
    stop.set()
    thread.join()


def test_a_killed_guard_is_noticed(warm: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        words = trial(tmp_path / "sweep" / "run", failing("hang")).command[len(TRAIN) :]
        forked = Forked.start(warm, words, output=log.fileno(), lock=log.fileno(), env=os.environ, cwd=CONF.parent)
    assert forked is not None
    until(lambda: len(of_session(forked.pid)) == 3)
    os.kill(forked.pid, signal.SIGKILL)
    assert forked.wait(10) == 137
    until(lambda: not of_session(forked.pid))  # without its guard, nobody needs the trial
