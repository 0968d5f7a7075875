"""Runs on several devices, started by srun, torchrun or vitexp itself: one record, and a message for every failure."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONF, TINY, composed, result, tiny_run
from tests.forked import Server
from tests.sweeps.processes import with_argument
from vitexp.errors import ConfigError
from vitexp.runs.launcher import RUN_FOLDER, Meeting, is_first_process
from vitexp.system.lock import is_held

# Without augmentation, mixing and rounding to bf16, two processes compute what one does.
EXACT = ("augment=none", "training.mixup_alpha=0", "training.cutmix_alpha=0", "trainer.precision=32-true")
ON_TWO = ("trainer.devices=2", "trainer.strategy=ddp")
ON_TWO_NODES = ("trainer.devices=1", "trainer.num_nodes=2", "trainer.strategy=ddp")


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run(tmp_path_factory.mktemp("alone"), *EXACT, "callbacks=none", "trainer.max_epochs=2")


def srun(rank: int, *, nodes: int, port: int) -> dict[str, str]:
    """Return the variables that srun gives to one of two tasks, and a free port, because tests share a machine."""
    per_node = 2 // nodes
    given: dict[str, Any] = {
        "SLURM_JOB_ID": 4711,
        "SLURM_STEP_ID": 0,
        "SLURM_NTASKS": 2,
        "SLURM_NNODES": nodes,
        "SLURM_NTASKS_PER_NODE": per_node,
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank % per_node,
        "SLURM_NODEID": rank // per_node,
        "MASTER_PORT": port,
    }
    return {name: str(value) for name, value in given.items()}


def together(server: Server, folder: Path, port: int, nodes: int, *overrides: str) -> list[int]:
    """Train as two tasks of srun; return their exit codes."""
    given = (*TINY, *EXACT, "logger=csv", "callbacks=none", f"log_dir={folder}", "name=two", "trainer.max_epochs=2")
    devices = ON_TWO if nodes == 1 else ON_TWO_NODES
    tasks = [
        server.start(folder / f"log{rank}", *given, *devices, *overrides, **srun(rank, nodes=nodes, port=port))
        for rank in (1, 0)  # the one that records comes last
    ]
    return [server.end(task) for task in reversed(tasks)]


def same_numbers(run: Path, other: Path) -> bool:
    ours, theirs = result(run), result(other)
    keys = ("epochs", "steps", "images_seen", "data")
    return all(ours[key] == theirs[key] for key in keys) and all(
        ours["metrics"][part] == pytest.approx(theirs["metrics"][part], abs=1e-5) for part in ("test", "val")
    )


def test_two_tasks_of_srun_are_one_run(server: Server, alone: Path, tmp_path: Path, free_port: int) -> None:
    assert together(server, tmp_path, free_port, 1) == [0, 0]
    [folder] = (tmp_path / "two").iterdir()
    assert same_numbers(folder, alone)
    assert result(folder)["environment"]["device_count"] == 2
    assert (tmp_path / "log1").read_text() == "", "only the first process reports"


def test_a_failure_on_the_second_node_is_recorded(server: Server, tmp_path: Path, free_port: int) -> None:
    fails = "+callbacks.fails={_target_: tests.failing.SecondProcess, how: raise}"
    codes = together(server, tmp_path, free_port, 2, fails)
    assert 0 not in codes
    [folder] = (tmp_path / "two").iterdir()
    failed = result(folder)
    assert (failed["status"], failed["error"]) == ("failed", "process 1 failed: ValueError: the second process failed")
    assert not is_held(folder / ".lock")


@pytest.mark.slow
def test_two_nodes_resume_the_run_that_the_first_one_finds(server: Server, tmp_path: Path, free_port: int) -> None:
    assert together(server, tmp_path, free_port, 2, "resume=auto", "trainer.max_epochs=1") == [0, 0]
    [folder] = (tmp_path / "two").iterdir()
    (folder / ".failed-process-1").write_text("process 1 failed: in an earlier attempt")
    assert together(server, tmp_path, free_port, 2, f"resume={folder}") == [0, 0]
    assert list((tmp_path / "two").iterdir()) == [folder]
    assert result(folder)["epochs"] == 2
    # Nothing is left to do, for none of them.
    before = (folder / "result.json").read_bytes()
    assert together(server, tmp_path, free_port, 2, "resume=auto") == [0, 0]
    assert (folder / "result.json").read_bytes() == before
    assert "is already complete" in (tmp_path / "log0").read_text()
    assert list((tmp_path / "two").iterdir()) == [folder]


def test_what_the_first_process_refuses_ends_all(server: Server, tmp_path: Path, free_port: int) -> None:
    assert together(server, tmp_path, free_port, 1, f"resume={tmp_path}") == [2, 2]
    assert "is not a run folder" in (tmp_path / "log0").read_text()
    assert not (tmp_path / "two").exists()


@pytest.mark.slow
def test_torchrun_with_two_processes_is_one_run(alone: Path, tmp_path: Path) -> None:
    torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node=2", str(CONF.parent / "train.py")]
    given = [*TINY, *EXACT, "logger=csv", "callbacks=none", f"log_dir={tmp_path}", "trainer.max_epochs=2"]
    ended = subprocess.run([*torchrun, *given, *ON_TWO], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    [folder] = tmp_path.glob("*/*")
    assert same_numbers(folder, alone)

    refused = subprocess.run([*torchrun, *given], capture_output=True, text=True, timeout=300)
    assert refused.returncode != 0
    assert "has started 2 processes, but trainer.devices times trainer.num_nodes is 1" in refused.stderr
    assert list(tmp_path.glob("*/*")) == [folder], "each process would have trained a run of its own"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "stuck", "error"),
    [
        ("raise", False, "process 1 failed: ValueError: the second process failed"),
        ("kill", False, "process 1 was killed by SIGKILL; perhaps the machine has too little memory."),
        ("kill", True, "process 1 was killed by SIGKILL; perhaps the machine has too little memory."),
    ],
)
def test_the_first_process_records_why_another_one_ended(tmp_path: Path, how: str, stuck: bool, error: str) -> None:
    fails = f"+callbacks.fails={{_target_: tests.failing.SecondProcess, how: {how}, stuck: {stuck}}}"
    words = [*TINY, "logger=csv", "callbacks=none", *ON_TWO, f"log_dir={tmp_path}", fails]
    ended = subprocess.run(
        [sys.executable, "train.py", *words], cwd=CONF.parent, capture_output=True, text=True, timeout=200
    )
    assert ended.returncode == 1
    assert f"vitexp: {error}" in ended.stderr.splitlines()
    [folder] = tmp_path.glob("*/*")
    assert (result(folder)["status"], result(folder)["error"]) == ("failed", error)
    assert (folder / "report.html").exists()
    deadline = time.monotonic() + 10
    while with_argument(f"log_dir={tmp_path}"):
        assert time.monotonic() < deadline, "the other process has outlived the first"
        time.sleep(0.1)


def test_who_records(monkeypatch: pytest.MonkeyPatch) -> None:
    alone, on_two_nodes = composed(), composed(*ON_TWO_NODES)
    assert is_first_process(alone)
    monkeypatch.setenv("NODE_RANK", "1")
    assert is_first_process(alone)
    assert not is_first_process(on_two_nodes)
    with pytest.raises(ConfigError, match="num_nodes=2 needs a launcher such as torchrun or srun"):
        Meeting.of(on_two_nodes)
    monkeypatch.setenv(RUN_FOLDER, "somewhere")
    assert not is_first_process(alone)


def test_a_job_is_not_yet_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch and salloc set most variables for the script itself, which is one process."""
    for name, value in srun(1, nodes=1, port=1).items():
        monkeypatch.setenv(name, value)
    assert not is_first_process(composed(*ON_TWO))
    with pytest.raises(ConfigError, match=r"has started 2 processes, but .* is 1; set"):
        Meeting.of(composed())
    monkeypatch.delenv("SLURM_STEP_ID")
    assert is_first_process(composed(*ON_TWO))
    assert Meeting.of(composed()).size == 1


def test_srun_that_does_not_say_enough_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in srun(1, nodes=1, port=1).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_NTASKS_PER_NODE")
    with pytest.raises(ConfigError, match="--ntasks-per-node=2"):
        Meeting.of(composed(*ON_TWO))


def test_a_folder_that_only_one_machine_sees_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Store:
        def get(self, key: str) -> str:
            return f'{{"folder": "{tmp_path}/nowhere", "is_complete": false}}'

    meeting = Meeting(1, 2)
    meeting._stores = [Store()]
    with pytest.raises(Exception, match=r"is not visible on .*; set log_dir to a folder that all machines share"):
        meeting.received()
