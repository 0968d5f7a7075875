"""Where scalars and figures go."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from vitexp.errors import ConfigError
from vitexp.system.wandb_mode import resolve_wandb_mode
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.loggers import wandb_logger


def made(folder: Path, mode: str) -> BackgroundWandbLogger:
    nothing: dict[str, Any] = {"entity": None, "group": None, "tags": ()}
    logger = wandb_logger(folder=folder, run_id="id", name="n", project="p", mode=mode, **nothing)
    assert isinstance(logger, BackgroundWandbLogger)
    return logger


@pytest.mark.parametrize(
    ("mode", "environment", "expected"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": "0" * 40}, "online"),
        ("auto", {"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, "offline"),
        ("offline", {"WANDB_API_KEY": "0" * 40}, "offline"),
        ("online", {}, "online"),
    ],
)
def test_auto_mode_is_online_if_logged_in_and_otherwise_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, environment: dict[str, str], expected: str
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # not the login of whoever runs the tests
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert resolve_wandb_mode(mode) == expected


def test_unknown_modes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auto, online or offline"):
        made(tmp_path, "sometimes")


def test_training_does_not_wait_for_the_run_to_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning touches every logger's run before training; only code that uses the run waits."""
    opened = threading.Event()

    def slow(mode: str) -> str:
        assert opened.wait(60)
        return "offline"

    monkeypatch.setattr("vitexp.training.background_wandb.resolve_wandb_mode", slow)
    logger = made(tmp_path, "offline")
    logger.open({"seed": 3}, earlier=[])
    run = logger.experiment  # returns although nothing is open yet
    opened.set()
    assert run.offline
    assert run.id == "id"
    assert run.config["seed"] == 3
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close(failed=False)


def test_a_run_that_cannot_be_opened_online_is_recorded_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(mode: str) -> str:
        raise RuntimeError("no network")

    monkeypatch.setattr("vitexp.training.background_wandb.resolve_wandb_mode", broken)
    logger = made(tmp_path, "online")
    logger.open({}, earlier=[])
    logger.log_metrics({"a": 1.0}, step=0)
    assert logger.experiment.offline
    assert "W&B cannot be reached (no network); this run is recorded offline" in caplog.text
    logger.close(failed=True)


def test_a_run_that_cannot_be_opened_at_all_turns_the_logger_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(**options: Any) -> None:
        raise ConnectionResetError("no service")

    monkeypatch.setattr("wandb.init", broken)
    logger = made(tmp_path, "offline")
    logger.open({}, earlier=[])
    logger.experiment.log({"a": 1.0})  # as Lightning and callbacks do, outside the methods that are guarded
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close(failed=False)
    assert caplog.text.count("W&B is turned off (no service); the run continues") == 1
