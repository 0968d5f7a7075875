"""W&B whose server fails, and whose service does not react: a run waits for neither."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.sweeps.processes import until
from tests.wandb_server import WandbServer, wandb_server
from vitexp.system.signals import Interrupted, StopSignals
from vitexp.training import background_wandb
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.loggers import wandb_logger


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with wandb_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        background_wandb._forget_service()  # with its settings
        yield server
        for helper in helpers():
            helper.kill()
        background_wandb._forget_service()
        background_wandb._forget_service()  # and the login, which the first call keeps if the service was killed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # restored afterwards
    monkeypatch.setattr(background_wandb, "_TIMEOUT_S", 1.0)
    monkeypatch.setattr(background_wandb, "_NOTICE_S", 0.5)


def helpers() -> list[psutil.Process]:
    living = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    return [each for each in living if "wandb-core" in " ".join(each.cmdline())]


def opened(folder: Path, **options: Any) -> BackgroundWandbLogger:
    logger = wandb_logger(folder=folder, run_id="id", name="n", project="p", mode="online", **options)
    assert isinstance(logger, BackgroundWandbLogger)
    logger.open({"seed": 3}, earlier=[])
    for step in range(5):
        logger.log_metrics({"a": float(step)}, step=step)
    assert not logger.experiment.offline  # waits until it is open
    return logger


def test_a_server_that_answers_receives_everything(
    server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(tmp_path).close(failed=False)
    assert [row["a"] for row in server.rows] == [0, 1, 2, 3, 4]
    assert server.is_complete
    assert "did not receive" not in caplog.text


@pytest.mark.parametrize(("weights", "expected"), [("auto", ["best", "latest", "seed-3"]), (False, None)])
def test_weights_are_an_artifact_with_aliases(
    server: WandbServer, tmp_path: Path, weights: Any, expected: list[str] | None
) -> None:
    logger = opened(tmp_path, row="wide net, 2", weights=weights)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    logger.log_weights(tmp_path / "model.safetensors", aliases=["best", "seed-3"])
    logger.close(failed=False)
    made = {each["artifactCollectionName"]: each["aliases"] for each in server.artifacts}
    assert list(made) == ([] if expected is None else ["wide-net-2"])
    assert sorted(each["alias"] for aliases in made.values() for each in aliases) == (expected or [])


def test_code_of_ones_own_is_an_artifact(server: WandbServer, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("class Net: ...")
    logger = opened(tmp_path)
    logger.log_code({"mine/net.py": tmp_path / "net.py"})
    logger.close(failed=False)
    [artifact] = server.artifacts
    assert artifact["artifactTypeName"] == "code"


@pytest.mark.parametrize(("row", "alerts"), [("wide", ["wide, seed 3 failed"]), (None, [])])
def test_a_failed_trial_of_a_sweep_is_an_alert(
    server: WandbServer, tmp_path: Path, row: str | None, alerts: list[str]
) -> None:
    opened(tmp_path, row=row).close(failed=True, error="out of memory")
    assert [(each["title"], each["text"]) for each in server.alerts] == [(title, "out of memory") for title in alerts]


@pytest.mark.parametrize("how", ["hangs", "401"])
def test_a_server_that_fails_ends_the_upload(
    server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    logger = opened(tmp_path)
    server.fail(how)
    start = time.monotonic()
    logger.close(failed=False)
    assert time.monotonic() - start < 20
    assert caplog.text.count("W&B did not receive the whole run; wandb sync ") == 1
    [data] = tmp_path.glob("wandb/run-*/run-id.wandb")
    assert str(data.parent) in caplog.text
    until(lambda: data.stat().st_size > 1000)  # its service writes it a moment later


def test_a_service_that_does_not_react_costs_neither_training_nor_its_numbers(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = opened(tmp_path)
    [helper] = helpers()
    helper.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    for step in range(5_000):  # more than the buffers of a socket take
        logger.log_metrics({"a": float(step)}, step=step)
    assert time.monotonic() - start < 10
    (tmp_path / "metrics.csv").write_text("step,epoch,a\n0,0,1.5\n")
    monkeypatch.setattr(background_wandb, "_LIMIT_S", 60.0)
    ended = logger._ended
    monkeypatch.setattr(
        ended, "wait", lambda limit, wait=ended.wait: wait(2 if limit == background_wandb._LIMIT_S else limit)
    )
    logger.close(failed=False)
    assert helper.pid not in [each.pid for each in helpers()]
    assert "this run is recorded offline" in caplog.text
    assert list(tmp_path.glob("wandb/offline-run-*/run-id.wandb"))


def test_a_signal_ends_the_wait_and_nothing_waits_at_exit(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background_wandb, "_TIMEOUT_S", 60.0)
    logger = opened(tmp_path)
    server.fail("hangs")
    threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    start = time.monotonic()
    with StopSignals() as stop, suppress(Interrupted), stop.at_once():
        logger.close(failed=False)
    assert time.monotonic() - start < 20
    assert "W&B did not receive the whole run; wandb sync " in caplog.text
