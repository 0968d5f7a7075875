"""However a run ends, result.json says how; a terminal that nobody reads never ends one."""

from __future__ import annotations

import os
import pty
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY, result
from tests.forked import Server, kill
from tests.sweeps.processes import of_session, until
from vitexp.system.signals import PATIENCE_S
from vitexp.training.checkpoints import read_checkpoint


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


def words(folder: Path, *overrides: str) -> tuple[str, ...]:
    return (*TINY, "logger=csv", "callbacks=none", f"log_dir={folder}", "name=run", *overrides)


def only_run(folder: Path) -> Path:
    [found] = (folder / "run").iterdir()
    return found


def failing(how: str) -> str:
    return f"+callbacks.fails={{_target_: tests.failing.Alone, how: {how}}}"


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def closed_terminal() -> int:
    master, terminal = pty.openpty()
    os.close(master)
    return terminal


@pytest.mark.parametrize("output", [closed_pipe, closed_terminal])
def test_output_that_nobody_reads_is_dropped(server: Server, tmp_path: Path, output: object) -> None:
    assert callable(output)
    descriptor = output()
    process = server.start_into(descriptor, *words(tmp_path, "trainer.enable_progress_bar=true"))
    os.close(descriptor)
    assert server.end(process) == 0
    record = result(only_run(tmp_path))
    assert (record["status"], record["epochs"]) == ("completed", 1)
    assert (only_run(tmp_path) / "model.safetensors").exists()


def test_a_closed_terminal_stops_the_run_with_a_checkpoint(server: Server, tmp_path: Path) -> None:
    process = server.start(tmp_path / "log", *words(tmp_path, "trainer.max_epochs=1000"))
    while not list(tmp_path.glob("run/*/checkpoints/*.ckpt")):
        time.sleep(0.01)
    kill(process, signal.SIGHUP)
    assert server.end(process) == 129
    record = result(only_run(tmp_path))
    assert (record["status"], record["error"]) == ("interrupted", "stopped by SIGHUP")
    assert read_checkpoint(only_run(tmp_path) / "checkpoints" / "last.ckpt")["global_step"] > 0


def test_a_library_that_exits_leaves_a_status(server: Server, tmp_path: Path) -> None:
    assert server.train(tmp_path / "log", *words(tmp_path, failing("exit"))) == 7
    record = result(only_run(tmp_path))
    assert (record["status"], record["error"]) == ("failed", "SystemExit: 7")


@pytest.mark.slow
def test_a_run_that_is_blocked_ends_within_a_minute(server: Server, tmp_path: Path) -> None:
    process = server.start(tmp_path / "log", *words(tmp_path, failing("block")))
    while not list(tmp_path.glob("run/*/metrics.csv")) and "training" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    time.sleep(2)  # by then, it is blocked
    start = time.monotonic()
    kill(process, signal.SIGTERM)
    assert server.end(process) == 143
    assert PATIENCE_S <= time.monotonic() - start < 60
    record = result(only_run(tmp_path))
    assert (record["status"], record["error"]) == (
        "interrupted",
        f"stopped by SIGTERM, which took more than {PATIENCE_S:.0f} s",
    )
    assert (only_run(tmp_path) / "report.html").exists()


@pytest.mark.soak
@pytest.mark.parametrize(
    ("to_workers", "to_run", "code", "status", "error"),
    [
        (signal.SIGKILL, None, 1, "failed", "the 2 processes that load images failed ("),
        (signal.SIGSTOP, signal.SIGTERM, 143, "interrupted", "stopped by SIGTERM, which took more than"),
    ],
    ids=["killed workers", "SIGTERM while workers are stalled"],
)
def test_workers_that_deliver_nothing(
    server: Server, tmp_path: Path, to_workers: int, to_run: int | None, code: int, status: str, error: str
) -> None:
    loading = ("augment=albumentations", "data.num_workers=2", "trainer.max_epochs=100000")
    process = server.start(tmp_path / "log", *words(tmp_path, *loading))
    while not list(tmp_path.glob("run/*/checkpoints/*.ckpt")):
        time.sleep(0.05)
    training = psutil.Process(process.pid).children()[1]
    for worker in training.children():
        worker.send_signal(to_workers)
    start = time.monotonic()
    if to_run is not None:
        time.sleep(1)
        training.send_signal(to_run)
    assert server.end(process) == code
    assert time.monotonic() - start < 60
    record = result(only_run(tmp_path))
    assert record["status"] == status
    assert record["error"].startswith(error)
    until(lambda: not of_session(process.pid))  # the workers have ended, too
