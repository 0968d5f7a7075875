"""Runs that diverge, are refused, fill the disk, fail or are interrupted, and their records."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import command, result, tiny_run
from vitexp.data.source import DataError
from vitexp.runs.lifecycle import FullDisk
from vitexp.training.callbacks.progress import NonFiniteLoss


@pytest.mark.parametrize("batches_per_step", [1, 2])
def test_divergence_names_the_step_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches_per_step: int
) -> None:
    from vitexp.training.classification import Classifier

    step = Classifier.training_step

    def diverges(self: Classifier, *arguments: Any) -> torch.Tensor:
        loss = step(self, *arguments)
        return loss * math.nan if self.global_step == 5 else loss

    monkeypatch.setattr(Classifier, "training_step", diverges)
    with pytest.raises(NonFiniteLoss, match=r"step 6.*optim\.lr"):
        tiny_run(tmp_path, "trainer.max_epochs=2", f"trainer.accumulate_grad_batches={batches_per_step}")
    [folder] = tmp_path.glob("*/*")
    record = result(folder)
    assert record["status"] == "failed"
    assert "step 6" in record["error"]  # counted from one
    assert (folder / "report.html").exists()
    good = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert good["global_step"] == 4
    assert all(torch.isfinite(value).all() for value in good["state_dict"].values())


def test_batch_larger_than_the_data_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="130 is larger than the training part of 129 images"):
        tiny_run(tmp_path, "data.batch_size=130")
    [folder] = tmp_path.glob("*/*")
    assert result(folder)["status"] == "failed"


def test_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    import vitexp.runs.finished

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(vitexp.runs.finished, "write_atomically", full)
    with pytest.raises(FullDisk, match="is full; free some space"):
        tiny_run(tmp_path, "callbacks=none")
    [folder] = tmp_path.glob("*/*")
    assert result(folder)["status"] == "failed"
    assert result(folder)["metrics"]["test"]["accuracy"] is not None  # the numbers do not need the weights
    assert [path.name for path in folder.glob(".*")] == [".lock"]


def test_a_report_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vitexp.runs import lifecycle

    def breaks(folder: Path) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(lifecycle, "write_report", breaks)
    lifecycle._write_report(tmp_path)
    assert "cannot write report.html (broken on purpose)" in caplog.text


@pytest.mark.slow
def test_wandb_learns_that_the_run_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitexp.training.classification import Classifier

    def breaks(*_: Any) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Classifier, "test_step", breaks)
    with pytest.raises(RuntimeError, match="on purpose"):
        tiny_run(tmp_path, "logger=wandb", "callbacks=none")
    [folder] = tmp_path.glob("*/*")
    assert result(folder)["error"] == "RuntimeError: broken on purpose"
    [run] = (folder / "wandb").glob("offline-run-*")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(run)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    [ended] = [json.loads(line) for line in listed.splitlines() if json.loads(line)["type"] == "exit"]
    assert ended["exit"]["exit_code"] == 1


@pytest.mark.slow
def test_ctrl_c_is_recorded_as_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path, "trainer.max_epochs=1000"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    [folder] = tmp_path.glob("*/*")
    assert result(folder)["status"] == "interrupted"
    assert (folder / "checkpoints" / "last.ckpt").exists()
