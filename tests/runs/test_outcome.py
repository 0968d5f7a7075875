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
from PIL import Image

from tests.conftest import TINY, command, composed, result, tiny_run
from vitexp.data.source import DataError
from vitexp.runs.lifecycle import FullDisk
from vitexp.runs.run import run
from vitexp.training.callbacks.divergence import NonFiniteLoss


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
    assert not list(tmp_path.iterdir())


@pytest.fixture
def broken(tmp_path: Path) -> tuple[str, ...]:
    """Return the overrides for a folder of images of which one cannot be decoded."""
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (32, 32), (30 * number, 0, 0)).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos" / "a" / "3.png").write_bytes(b"\x89PNG")
    small = [word for word in TINY if "_per_class" not in word and "batch_size" not in word]
    return (*small, "logger=csv", "callbacks=none", "data=folder", f"data.root={tmp_path / 'photos'}")


def test_a_refused_run_leaves_nothing(
    tmp_path: Path, broken: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"^1 of 16 images cannot .*data\.on_broken=skip: .*/a/3\.png: "):
        run(composed(*broken, f"log_dir={tmp_path / 'logs'}"))
    assert not list((tmp_path / "logs").iterdir())
    assert "report" not in capsys.readouterr().out
    run(composed(*broken, f"log_dir={tmp_path / 'logs'}", "data.on_broken=skip", "resume=auto"))
    [folder] = tmp_path.glob("logs/*/*")
    assert result(folder)["status"] == "completed"
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if line.endswith(" ...") or line.startswith(("classes", "no stopped"))]
    nothing_to_resume = "no stopped run of this command; a new one starts"
    assert said == [nothing_to_resume, "reading the images ...", "classes   a and b", "training ..."]


def test_a_refused_run_leaves_what_was_there(tmp_path: Path, broken: tuple[str, ...]) -> None:
    """Also the folder of a trial, whose sweep reads from it why it was refused."""
    folder = tmp_path / "logs" / "n" / "mine"
    folder.mkdir(parents=True)
    (folder / "trial.lock").touch()
    with pytest.raises(DataError):
        run(composed(*broken, f"log_dir={tmp_path / 'logs'}", "name=n", "run_id=mine"))
    assert (folder / "trial.lock").exists() and not (folder / "report.html").exists()
    assert result(folder)["status"] == "failed" and "cannot be decoded" in result(folder)["error"]


def test_a_run_that_has_trained_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitexp.training.classification import Classifier

    def refuses(self: Classifier) -> None:
        raise DataError("no test images.")

    monkeypatch.setattr(Classifier, "on_test_start", refuses)
    with pytest.raises(DataError, match="no test images"):
        tiny_run(tmp_path, "callbacks=none")
    [folder] = tmp_path.glob("*/*")
    assert (result(folder)["status"], result(folder)["epochs"]) == ("failed", 1)
    assert (folder / "report.html").exists()


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
