"""A disk that fills up while a run writes: what goes on, what is said, and what is there when room comes back.

On a small file system of their own, which only root can mount; test_disk.py has what anyone can run.
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
from vitexp.runs.folder import FullDisk
from vitexp.system import disk
from vitexp.system.disk import refusal, unwritten
from vitexp.training.checkpoints import read_checkpoint

SIZE = 4 << 20  # of the small file system


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
    """Leave no byte."""
    with open(folder / "hog", "ab", buffering=0) as hog:
        for size in (1 << 16, 1):
            try:
                while True:
                    hog.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def make_room(folder: Path) -> None:
    (folder / "hog").unlink()


class FullFrom(Callback):
    """Fills the disk at a step, and makes room at another."""

    def __init__(self, folder: Path, *, step: int, until: int | None = None) -> None:
        self.folder, self.step, self.until = folder, step, until

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            fill(self.folder)
        if trainer.global_step == self.until:
            make_room(self.folder)


def run_on(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *overrides: str,
    step: int,
    until: int | None = None,
    checkpoints: bool = False,
) -> Path:
    """A run of two epochs of 4 steps each; its folder."""
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
def test_checkpoints_that_are_refused_do_not_end_the_training(
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    until: int | None,
) -> None:
    """Without room to the end, the last weights are tested; with room back, the last checkpoint is there."""
    if until is None:
        with pytest.raises(FullDisk):
            run_on(monkeypatch, small_disk, "callbacks=none", step=2, checkpoints=True)
    else:
        made = run_on(monkeypatch, small_disk, "callbacks=none", step=2, until=until, checkpoints=True)
        assert result(made)["status"] == "completed"
        assert read_checkpoint(made / "checkpoints" / "last.ckpt")["global_step"] == 8
    told = " ".join(capsys.readouterr().out.split())
    assert "cannot write checkpoints/best.ckpt (No space left on device); the run continues" in told
    assert "top-5 accuracy" in told
    assert until or "the last weights are tested" in told


@pytest.mark.slow
def test_with_room_back_nothing_is_lost(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tiny_run(
        tmp_path / "whole",
        *("trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.enable_checkpointing=false"),
    )
    capsys.readouterr()
    made = run_on(monkeypatch, small_disk, step=2, until=6)
    told = " ".join(capsys.readouterr().out.split())
    assert rows(made / "metrics.csv") == rows(whole / "metrics.csv")
    assert (made / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert result(made)["status"] == "completed"
    assert result(made)["metrics"] == result(whole)["metrics"]
    assert told.count("cannot write metrics.csv (No space left on device)") == 1
    assert told.count("cannot write figures/") == 1
    assert "epoch 2/2" in (made / "train.log").read_text()
    assert "epoch 1/2" in (made / "train.log").read_text()  # written late
    assert "not written" not in told  # in the end everything is there but the figure of the first epoch, drawn again
    assert [path.name for path in made.iterdir() if path.name.startswith(".")] == [".lock"]


def test_without_room_the_numbers_remain(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FullDisk, match=r"is full; free some space, or set log_dir to another disk\.$"):
        run_on(monkeypatch, small_disk, step=2)
    made = (tmp_path / "made").resolve()
    told = " ".join(capsys.readouterr().out.split())
    assert "top-5 accuracy" in told  # the table
    assert "epoch 2/2" in told
    record = result(made)  # readable, and complete but for the weights
    assert record["status"] == "failed"
    assert "is full" in record["error"]
    assert record["steps"] == 8
    assert record["metrics"]["test"]["accuracy"] is not None
    assert not (made / "model.safetensors").exists()
    assert [path.name for path in made.iterdir() if path.name.startswith(".")] == [".lock"]
    [_, summary] = told.split("not written, or not completely: ")
    for what in ("metrics.csv", "train.log", "figures/curves.png", "figures/samples.png"):
        assert what in summary
    # whole rows of before, whatever is half at the end
    assert [row["step"] for row in rows(made / "metrics.csv")][:2] == ["0", "0"]


@pytest.mark.slow
def test_tensorboard_begins_another_file_once_there_is_room(
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
    said = capfd.readouterr()
    assert said.out.count("cannot write tensorboard (No space left on device)") == 1
    assert "Traceback" not in said.err  # of the thread that writes
    assert result(made)["status"] == "completed"


def test_tensorboard_waits_for_room_for_its_first_file(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitexp.training.loggers import PatientTensorBoardLogger, tensorboard_logger

    pytest.importorskip("tensorboard")
    monkeypatch.setattr(PatientTensorBoardLogger, "retry_s", 0.0)
    monkeypatch.setattr("threading.excepthook", lambda ended: None)  # logging_to does so in a run
    logger = tensorboard_logger(folder=small_disk, run_id="id", name="n")
    fill(small_disk)
    assert not hasattr(logger, "experiment")  # as Lightning asks
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    assert list(unwritten()) == ["tensorboard"]
    make_room(small_disk)
    logger.log_metrics({"a": 1.0}, step=1)
    logger.finalize("success")
    assert not unwritten()
    assert max(path.stat().st_size for path in (small_disk / "tensorboard").glob("events.*")) > 0


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2])
def test_wandb_costs_its_own_files_only(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], step: int
) -> None:
    made = run_on(monkeypatch, small_disk, "logger=wandb", step=step, until=7)
    said = capfd.readouterr()
    assert said.out.count("cannot write wandb") == 1
    assert "not written, or not completely: wandb" in said.out
    assert "Traceback" not in said.out + said.err
    assert result(made)["status"] == "completed"
    assert (made / "model.safetensors").exists()


def test_a_disk_that_is_full_before_the_run_is_one_sentence(small_disk: Path) -> None:
    from vitexp.errors import UserError

    fill(small_disk)
    with pytest.raises(UserError, match=r"cannot start a run in .*No space left on device; free some space"):
        tiny_run(small_disk)


def test_the_record_of_a_full_disk_is_never_half(small_disk: Path) -> None:
    """Where there is no room for a second one, it is overwritten in its own place."""
    from vitexp.runs.record import RunRecord

    record = RunRecord(small_disk, {"run_id": "x", "status": "running"})
    record.update(metrics=None)
    fill(small_disk)
    record.update(metrics={"test": {"accuracy": 0.5}}, name="n" * 1000)
    record.finish("failed", error="the disk is full")
    assert result(small_disk)["metrics"] == {"test": {"accuracy": 0.5}}
    assert result(small_disk)["status"] == "failed"
    assert not unwritten()
    record.update(name="n" * 10_000)  # more than the blocks that it has
    assert unwritten() == {"result.json": "No space left on device"}
    make_room(small_disk)
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
def test_a_full_disk_is_known_by_every_library_that_meets_it(small_disk: Path, save: Any) -> None:
    with pytest.raises(Exception, match=r"pos|No space") as caught:
        save(small_disk / "weights")
    assert refusal(caught.value) == "No space left on device"
