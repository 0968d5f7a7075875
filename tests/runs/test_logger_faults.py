"""Whatever happens to a logger or a figure, the training, its numbers and its weights remain."""

from __future__ import annotations

import csv
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY, result
from tests.forked import Server
from tests.sweeps.processes import until
from tests.wandb_server import wandb_server

WHEN = ("start", "middle", "end")


@pytest.fixture(scope="module")
def server() -> Server:
    return Server()


def trained(
    server: Server, folder: Path, *overrides: str, timeout: float = 120.0, **environment: str
) -> tuple[Path, str]:
    """Train two epochs; check that the run is complete, and return its folder and its log."""
    given = ("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "run_id=run", f"log_dir={folder}", "name=faults")
    folder.mkdir(exist_ok=True)
    code = server.train(folder / "log", *TINY, *given, *overrides, timeout=timeout, **environment)
    text, run = (folder / "log").read_text(), folder / "faults" / "run"
    assert code == 0, text[-3000:]
    record = result(run)
    assert (record["status"], record["epochs"]) == ("completed", 2)
    assert record["metrics"]["test"]["loss"] > 0
    assert (run / "model.safetensors").exists()
    assert (run / "report.html").exists()
    assert "Traceback" not in text
    return run, text


def fault(what: str, when: str, path: Path | str = "") -> str:
    return f"+callbacks.fault={{_target_: tests.failing.LoggerFault, what: {what}, when: {when}, path: '{path}'}}"


@pytest.mark.soak
@pytest.mark.parametrize("when", WHEN)
def test_killing_the_service_of_wandb(server: Server, tmp_path: Path, when: str) -> None:
    run, text = trained(server, tmp_path, "logger=default", fault("service", when))
    assert "W&B failed (" in text
    assert when == "end" or "turned off" not in text  # at the end, there may be nothing left to log
    assert len(list((run / "wandb").glob("offline-run-*"))) >= 1
    with (run / "metrics.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["train/loss_step"]]) == 8
    assert (run / "figures" / "confusion_matrix.png").exists()


@pytest.mark.soak
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("how", ["refuses", "hangs", "nonsense", "500", "401"])
def test_a_server_of_wandb_that_fails(server: Server, tmp_path: Path, how: str, when: str) -> None:
    with wandb_server() as online:
        run, text = trained_before_waiting(server, tmp_path, fault("server", when, how), **online.environment)
    assert "turned off" not in text
    if list((run / "wandb").glob("offline-run-*")):
        assert "this run is recorded offline" in text
    else:
        assert text.count("W&B did not receive the whole run; wandb sync ") == 1


@pytest.mark.soak
@pytest.mark.parametrize("when", WHEN)
def test_a_stopped_service_of_wandb(server: Server, tmp_path: Path, when: str) -> None:
    with wandb_server() as online:
        run, text = trained_before_waiting(server, tmp_path, fault("stopped service", when), **online.environment)
    assert "this run is recorded offline" in text
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def trained_before_waiting(server: Server, folder: Path, *overrides: str, **environment: str) -> tuple[Path, str]:
    """Train as `trained` does; check that everything is written before the wait for W&B, and that the wait ends."""
    run = folder / "faults" / "run"
    seen: list[tuple[bool, ...]] = []
    finished: list[float] = []

    def watch() -> None:
        with suppress(AssertionError):  # the test fails below
            until(lambda: (run / "result.json").exists() and result(run)["status"] == "completed", seconds=200)
        finished.append(time.monotonic())
        seen.append(tuple((run / name).exists() for name in ("model.safetensors", "predictions.csv", "metrics.csv")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = trained(server, folder, "logger=default", *overrides, timeout=240, **environment)
    ended = time.monotonic()
    watcher.join()
    assert seen == [(True, True, True)]
    assert ended - finished[0] < 120
    with (run / "metrics.csv").open() as file:
        assert len([row for row in csv.DictReader(file) if row["train/loss_step"]]) == 8
    helpers = [each for each in psutil.process_iter(["environ"]) if environment["WANDB_BASE_URL"] in str(each.info)]
    assert not psutil.wait_procs(helpers, timeout=60)[1]
    return answer


@pytest.mark.soak
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("logger", ["tensorboard", "csv", "wandb"])
def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path, when: str, logger: str) -> None:
    path = tmp_path / "faults" / "run" / ("metrics.csv" if logger == "csv" else logger)
    trained(server, tmp_path, f"logger={logger}", "callbacks=none", fault("folder", when, path))


@pytest.mark.parametrize(
    "method",
    [
        "experiment",
        "log_metrics",
        *(pytest.param(each, marks=pytest.mark.soak) for each in ("log_hyperparams", "save", "finalize")),
    ],
)
def test_any_exception_of_any_logger_is_one_warning(server: Server, tmp_path: Path, method: str) -> None:
    logger = f"+logger.mine={{_target_: tests.failing.failing_logger, method: {method}}}"
    run, text = trained(server, tmp_path, "logger=csv", "callbacks=none", logger)
    assert text.count("FailingLogger is turned off ('the server is on fire'); the run continues") == 1
    assert (run / "metrics.csv").exists()


def test_a_figure_that_cannot_be_drawn_is_a_warning(server: Server, tmp_path: Path) -> None:
    figure = "+callbacks.failing={_target_: tests.failing.FailingFigure, every_n_epochs: 1}"
    run, text = trained(server, tmp_path, "logger=csv", "callbacks=none", figure)
    assert "cannot draw figures/failing.png (" in text
    assert "no permission to draw); the run continues" in text
    plain, _ = trained(server, tmp_path / "plain", "logger=csv", "callbacks=none")
    assert (run / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()


@pytest.mark.soak
@pytest.mark.parametrize("home", ["/proc", "/dev/null", ""])
def test_a_home_folder_that_does_not_exist(server: Server, tmp_path: Path, home: str) -> None:
    trained(server, tmp_path, "logger=default", HOME=home)


@pytest.mark.soak
def test_without_a_network_the_run_is_recorded_offline(server: Server, tmp_path: Path) -> None:
    reachable = {"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    run, text = trained(server, tmp_path, "logger=default", **reachable)
    assert "this run is recorded offline" in text
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def test_a_mode_that_wandb_does_not_know_is_one_sentence(server: Server, tmp_path: Path) -> None:
    assert server.train(tmp_path / "log", *TINY, "logger=wandb", f"log_dir={tmp_path}", WANDB_MODE="nonsense") == 2
    assert "WANDB_MODE=nonsense must be one of online, offline" in (tmp_path / "log").read_text()
