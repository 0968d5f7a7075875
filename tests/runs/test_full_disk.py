"""Runs on a disk that fills up: they keep training, report what was not written, and write it once there is space.

These tests mount a small file system, which only root can; tests/system/test_disk.py has those for everyone.
"""

from __future__ import annotations

import csv
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from safetensors.torch import save_file

from tests.conftest import result, tiny_run
from vitexp.runs.lifecycle import FullDisk
from vitexp.system import disk
from vitexp.system.disk import refusal, unwritten
from vitexp.training.checkpoints import read_checkpoint

SIZE = 8 << 20  # of the small file system: room for a report with all figures


@pytest.fixture(autouse=True)
def _fresh() -> None:
    disk.forget()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of `SIZE` bytes."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(mounted)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a file system cannot be mounted here: {error}")
    yield mounted
    subprocess.run(["umount", "--lazy", str(mounted)], check=True)


def fill(folder: Path) -> None:
    """Fill the disk to the last byte."""
    with open(folder / "hog", "ab", buffering=0) as hog:
        for size in (1 << 16, 1):
            try:
                while True:
                    hog.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def free_space(folder: Path) -> None:
    (folder / "hog").unlink()


class FullFrom(Callback):
    """A callback that fills the disk at step `step` and frees it at step `until`."""

    def __init__(self, folder: Path, *, step: int, until: int | None = None) -> None:
        self.folder, self.step, self.until = folder, step, until

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            fill(self.folder)
        if trainer.global_step == self.until:
            free_space(self.folder)


def run_on(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *overrides: str,
    step: int,
    until: int | None = None,
    checkpoints: bool = False,
) -> Path:
    """Train two epochs of 4 steps each on the small disk; return the run folder."""
    import vitexp.runs.run

    callbacks = vitexp.runs.run._callbacks
    filler = FullFrom(folder, step=step, until=until)
    monkeypatch.setattr(vitexp.runs.run, "_callbacks", lambda *given, **named: [filler, *callbacks(*given, **named)])
    fixed = ["trainer.max_epochs=2", "trainer.log_every_n_steps=1", f"trainer.enable_checkpointing={checkpoints}"]
    try:
        tiny_run(folder, *fixed, *overrides)
    finally:
        [made] = [path for path in folder.glob("signs-*/*") if path.is_dir()]
        (folder.parent / "made").symlink_to(made)
    return made


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("until", [None, 6])
def test_training_survives_refused_checkpoints(
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    until: int | None,
) -> None:
    """If the disk stays full, the last weights are tested; if there is space again, the last checkpoint is written."""
    if until is None:
        with pytest.raises(FullDisk):
            run_on(monkeypatch, small_disk, "callbacks=none", step=2, checkpoints=True)
    else:
        made = run_on(monkeypatch, small_disk, "callbacks=none", step=2, until=until, checkpoints=True)
        assert result(made)["status"] == "completed"
        assert read_checkpoint(made / "checkpoints" / "last.ckpt")["global_step"] == 8
    printed = " ".join(capsys.readouterr().out.split())
    assert "cannot write checkpoints/best.ckpt (No space left on device); the run continues" in printed
    assert "top-5 accuracy" in printed
    assert until or "the last weights are tested" in printed


@pytest.mark.slow
def test_with_space_again_nothing_is_lost(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tiny_run(
        tmp_path / "whole",
        *("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.enable_checkpointing=false"),
    )
    capsys.readouterr()
    made = run_on(monkeypatch, small_disk, step=2, until=6)
    printed = " ".join(capsys.readouterr().out.split())
    assert rows(made / "metrics.csv") == rows(whole / "metrics.csv")
    assert (made / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert result(made)["status"] == "completed"
    assert result(made)["metrics"] == result(whole)["metrics"]
    assert printed.count("cannot write metrics.csv (No space left on device)") == 1
    assert printed.count("cannot write figures/") == 1
    assert "epoch 2/2" in (made / "train.log").read_text()
    assert "epoch 1/2" in (made / "train.log").read_text()  # written late
    assert "not written" not in printed  # the figure of the first epoch was drawn again later
    assert [path.name for path in made.iterdir() if path.name.startswith(".")] == [".lock"]


def test_numbers_survive_a_full_disk(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FullDisk, match=r"is full; free some space, or set log_dir to another disk\.$"):
        run_on(monkeypatch, small_disk, step=2)
    made = (tmp_path / "made").resolve()
    printed = " ".join(capsys.readouterr().out.split())
    assert "top-5 accuracy" in printed  # the table
    assert "epoch 2/2" in printed
    record = result(made)  # readable, and complete except for the weights
    assert record["status"] == "failed"
    assert "is full" in record["error"]
    assert record["steps"] == 8
    assert record["metrics"]["test"]["accuracy"] is not None
    assert not (made / "model.safetensors").exists()
    assert [path.name for path in made.iterdir() if path.name.startswith(".")] == [".lock"]
    [_, summary] = printed.split("not written, or not completely: ")
    for what in ("metrics.csv", "train.log", "figures/curves.png", "figures/samples.png"):
        assert what in summary
    # the rows from before are intact; the last row may be incomplete
    assert [row["step"] for row in rows(made / "metrics.csv")][:2] == ["0", "0"]


@pytest.mark.slow
def test_tensorboard_starts_another_file_once_there_is_space(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    event_file = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    monkeypatch.setattr("vitexp.training.loggers.PatientTensorBoardLogger.retry_s", 0.0)
    overrides = ["logger=tensorboard", "callbacks=none", "trainer.max_epochs=15"]
    made = run_on(monkeypatch, small_disk, *overrides, step=2, until=55)
    seen = {
        event.step
        for path in (made / "tensorboard").glob("events.*")
        for event in event_file.EventFileLoader(str(path)).Load()
    }
    assert {0, 1, 56, 59} <= seen < set(range(61))
    output = capfd.readouterr()
    assert output.out.count("cannot write tensorboard (No space left on device)") == 1
    assert "Traceback" not in output.err  # from the writer thread
    assert result(made)["status"] == "completed"


def test_tensorboard_waits_for_space_for_its_first_file(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitexp.training.loggers import PatientTensorBoardLogger, tensorboard_logger

    pytest.importorskip("tensorboard")
    monkeypatch.setattr(PatientTensorBoardLogger, "retry_s", 0.0)
    monkeypatch.setattr("threading.excepthook", lambda ended: None)  # logging_to does so in a run
    logger = tensorboard_logger(folder=small_disk, run_id="id", name="n")
    fill(small_disk)
    assert not hasattr(logger, "experiment")  # as Lightning checks
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    assert list(unwritten()) == ["tensorboard"]
    free_space(small_disk)
    logger.log_metrics({"a": 1.0}, step=1)
    logger.finalize("success")
    assert not unwritten()
    assert max(path.stat().st_size for path in (small_disk / "tensorboard").glob("events.*")) > 0


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2])
def test_only_the_files_of_wandb_are_lost(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], step: int
) -> None:
    made = run_on(monkeypatch, small_disk, "logger=wandb", step=step, until=7)
    output = capfd.readouterr()
    assert output.out.count("cannot write wandb") == 1
    assert "not written, or not completely: wandb" in output.out
    assert "Traceback" not in output.out + output.err
    assert result(made)["status"] == "completed"
    assert (made / "model.safetensors").exists()


def test_disk_that_is_full_before_the_run(small_disk: Path) -> None:
    from vitexp.errors import UserError

    fill(small_disk)
    with pytest.raises(UserError, match=r"cannot start a run in .*No space left on device; free some space"):
        tiny_run(small_disk)


def test_record_on_a_full_disk_is_never_partial(small_disk: Path) -> None:
    """Without space for a second file, result.json is overwritten in place."""
    from vitexp.runs.record import RunRecord

    record = RunRecord(small_disk, {"run_id": "x", "status": "running"})
    record.update(metrics=None)
    fill(small_disk)
    record.update(metrics={"test": {"accuracy": 0.5}}, name="n" * 1000)
    record.finish("failed", error="the disk is full")
    assert result(small_disk)["metrics"] == {"test": {"accuracy": 0.5}}
    assert result(small_disk)["status"] == "failed"
    assert not unwritten()
    record.update(name="n" * 10_000)  # larger than the blocks of the file
    assert unwritten() == {"result.json": "No space left on device"}
    free_space(small_disk)
    record.finish("completed")
    assert result(small_disk)["status"] == "completed"


def saves_with_torch(path: Path) -> None:
    torch.save({"weights": torch.zeros(SIZE)}, path)


def saves_to_a_file_with_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save({"weights": torch.zeros(SIZE)}, file)


def saves_with_safetensors(path: Path) -> None:
    save_file({"weights": torch.zeros(SIZE)}, path)


@pytest.mark.parametrize("save", [saves_with_torch, saves_to_a_file_with_torch, saves_with_safetensors])
def test_full_disk_is_recognized_in_the_errors_of_libraries(small_disk: Path, save: Any) -> None:
    with pytest.raises(Exception, match=r"pos|No space") as caught:
        save(small_disk / "weights")
    assert refusal(caught.value) == "No space left on device"


@pytest.mark.soak
@pytest.mark.parametrize(("step", "until"), [(0, 2), (3, 6), (7, None)], ids=["start", "middle", "end"])
@pytest.mark.parametrize("logger", ["csv", "tensorboard", "wandb"])
def test_a_full_disk_costs_no_logger_the_run(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, logger: str, step: int, until: int | None
) -> None:
    options = ("callbacks=none", f"logger={logger}")
    if until is None:  # there is no space for the weights, but the numbers are recorded
        with pytest.raises(FullDisk):
            run_on(monkeypatch, small_disk, *options, step=step)
        made = (small_disk.parent / "made").resolve()
        assert result(made)["status"] == "failed"
    else:
        made = run_on(monkeypatch, small_disk, *options, step=step, until=until)
        assert result(made)["status"] == "completed"
        assert (made / "model.safetensors").exists()
    assert result(made)["steps"] == 8
    assert result(made)["metrics"]["test"]["loss"] > 0
