"""Where scalars and figures go."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from vitexp.errors import ConfigError
from vitexp.system.wandb_mode import resolve_wandb_mode
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.loggers import wandb_logger


@pytest.fixture(autouse=True)
def _data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # restored afterwards


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
    assert run.name.endswith(", seed 3")
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close(failed=False)


def test_a_run_that_cannot_be_opened_online_is_recorded_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(mode: str) -> str:
        raise RuntimeError("no network")

    monkeypatch.setattr("vitexp.training.background_wandb.resolve_wandb_mode", broken)
    logger = made(tmp_path, "online")
    logger.open({"seed": 0}, earlier=[])
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
    logger.open({"seed": 0}, earlier=[])
    logger.experiment.log({"a": 1.0})  # as Lightning and callbacks do, outside the methods that are guarded
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close(failed=False)
    assert caplog.text.count("W&B is turned off (no service); the run continues") == 1


def test_the_run_says_what_it_is_and_its_summary_holds_the_best_value_and_its_epoch(tmp_path: Path) -> None:
    logger = wandb_logger(folder=tmp_path, run_id="id", name="n", row="wide", tags=["mine", "net"], mode="offline")
    assert isinstance(logger, BackgroundWandbLogger)
    earlier = [{"step": 0.0, "epoch": 0.0, "val/accuracy": 0.5, "val/loss": 2.0}]
    config = {"seed": 3, "data": {"folds": 5, "fold": 2}}
    logger.open(
        config, earlier=earlier, job_type="pretrain", tags=["net", "", "d" * 70], monitor=("val/accuracy", "max")
    )
    for epoch, accuracy, loss in ((1, 0.7, 1.5), (2, 0.7, 1.4), (3, 0.6, 1.3)):
        logger.log_metrics({"val/accuracy": accuracy, "val/loss": loss, "epoch": epoch}, step=epoch)
    logger.summarize({"model/parameters": 12})
    run = logger.experiment
    assert (run.name, run.job_type, run.tags) == ("wide, seed 3, fold 2", "pretrain", ("mine", "net", "d" * 64))
    logger.close(failed=False)
    [folder] = tmp_path.glob("wandb/offline-run-*")
    summary = {name: value for record in records(folder, "summary") for name, value in record["update"].items()}
    assert summary["val/accuracy"] == {"last": 0.6, "max": 0.7}
    assert summary["val/loss"] == {"last": 1.3, "min": 1.3}
    assert summary["best/epoch"] == 3  # of two equal accuracies, the one with the lower loss
    assert summary["model/parameters"] == 12


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the records of this kind in the file of an offline run."""
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(folder)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [record[kind] for record in map(json.loads, listed.splitlines()) if record["type"] == kind]


def test_after_a_failure_the_summary_is_complete(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = made(tmp_path, "offline")
    logger.open({"seed": 3}, earlier=[])
    logger.summarize({"model/parameters": 12})
    logger.log_metrics({"val/loss": 1.0, "epoch": 4}, step=0)
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n0,4,1.0\n1,5,0.5\n")

    def fail() -> None:
        raise ConnectionResetError("no service")

    logger._later(fail)
    logger.close(failed=False)
    assert caplog.text.count("W&B failed (no service); this run is recorded offline") == 1
    newest = max(tmp_path.glob("wandb/offline-run-*"), key=lambda path: path.stat().st_mtime)
    summary = {name: value for record in records(newest, "summary") for name, value in record["update"].items()}
    assert (summary["model/parameters"], summary["best/epoch"]) == (12, 6)


def test_a_service_that_dies_while_the_run_opens_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from wandb import Run

    define, failures = Run.define_metric, [ConnectionResetError("no service")]

    def failing(run: Run, name: str, **options: Any) -> Any:
        if name == "val/loss" and failures:
            raise failures.pop()
        return define(run, name, **options)

    monkeypatch.setattr(Run, "define_metric", failing)
    logger = made(tmp_path, "offline")
    logger.open({"seed": 0}, earlier=[])
    first = logger.experiment
    logger.log_metrics({"a": 1.0}, step=0)
    logger.close(failed=False)
    assert first.id == "id"
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) >= 1
    assert "W&B failed (no service); this run is recorded offline" in caplog.text
    assert "turned off" not in caplog.text


def test_the_first_extra_that_is_refused_is_the_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(run: Any) -> None:
        raise TimeoutError("no answer")

    logger = made(tmp_path, "offline")
    logger.open({"seed": 0}, earlier=[])
    taken: list[str] = []
    logger.log_extra("a", lambda run: taken.append("a"))
    logger.log_extra("b", refuse)
    logger.log_extra("c", lambda run: taken.append("c"))
    logger.close(failed=False)
    assert taken == ["a"]
    assert caplog.text.count("W&B did not take b (no answer); the run continues without such extras") == 1
