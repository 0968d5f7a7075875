"""Batches that are too large for memory: the message, and that its suggestion fits."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CONF, TINY, command, result, tiny_run
from vitexp.training.classification import Classifier
from vitexp.training.out_of_memory import OutOfMemory, _used, _ways, lacks_memory

REFUSED = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


def room_for(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate memory that has room for a training step on this many images."""
    original = Classifier.training_step

    def limited(self: Classifier, batch: Any, *arguments: Any) -> Any:
        if len(batch[0]) > images:
            raise RuntimeError(REFUSED)
        return original(self, batch, *arguments)

    monkeypatch.setattr(Classifier, "training_step", limited)


@pytest.mark.parametrize(
    ("images", "overrides", "said"),
    [
        # an eighth more than the suggestion must fit
        (20, ["data.batch_size=64"], r"accumulate_grad_batches=4 processes 16 at a time .*, or data\.batch_size=16\.$"),
        (17, ["data.batch_size=64"], r"accumulate_grad_batches=8 processes 8 at a time .*, or data\.batch_size=8\.$"),
        (
            9,
            ["data.batch_size=64", "trainer.accumulate_grad_batches=4"],
            r"16 images .*accumulate_grad_batches=8 processes 8 at a time .*, or data\.batch_size=32\.$",
        ),
        (30, ["data.batch_size=53"], r"53 images of vit_tiny at a time; data\.batch_size=26 would fit\.$"),  # a prime
        (0, ["data.batch_size=64"], r"even 1 image of vit_tiny at a time; use a smaller model"),
    ],
)
def test_the_message_says_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, overrides: list[str], said: str
) -> None:
    room_for(images, monkeypatch)
    with pytest.raises(OutOfMemory, match=said) as caught:
        tiny_run(tmp_path, "callbacks=none", *overrides)
    assert caught.value.exit_code == 1
    assert len(str(caught.value).splitlines()) == 1
    [folder] = tmp_path.glob("*/*")
    assert result(folder)["status"] == "failed"
    assert result(folder)["error"] == str(caught.value)


def test_only_forward_passes_are_tried_in_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[int] = []

    def apply_net(self: Classifier, images: torch.Tensor, *more: Any, **options: Any) -> torch.Tensor:
        if self.trainer.state.fn == "test":
            trained.append(len(images))
            if len(images) > 12:
                raise RuntimeError(REFUSED)
        return original(self, images, *more, **options)

    original = Classifier.apply_net
    monkeypatch.setattr(Classifier, "apply_net", apply_net)
    with pytest.raises(OutOfMemory, match=r"processes 8 at a time"):
        tiny_run(tmp_path, "callbacks=none", "data.batch_size=32")
    assert trained == [32, 1, 2, 4, 9, 18]


def test_other_errors_are_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> None:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Classifier, "training_step", breaks)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        tiny_run(tmp_path, "callbacks=none")


def test_the_suggestion_is_a_guess_if_a_trial_fails_for_another_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Classifier, batch: Any, *_: Any) -> None:
        raise RuntimeError(REFUSED if len(batch[0]) == 64 else "shapes do not match")

    monkeypatch.setattr(Classifier, "training_step", breaks)
    with pytest.raises(OutOfMemory, match=r"perhaps trainer\.accumulate_grad_batches=2"):
        tiny_run(tmp_path, "callbacks=none", "data.batch_size=64")


def test_running_out_before_the_first_batch_is_blamed_on_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Classifier) -> None:
        raise RuntimeError(REFUSED)

    monkeypatch.setattr(Classifier, "configure_optimizers", breaks)
    with pytest.raises(OutOfMemory, match=r"too little memory for vit_tiny and its optimizer; use a smaller model"):
        tiny_run(tmp_path, "callbacks=none")


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9.0 GB)."), True),
        (RuntimeError(REFUSED), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4096 bytes."), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a primitive descriptor for a matmul primitive"), False),
        (MemoryError(), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (OSError("out of memory"), False),
    ],
)
def test_messages_of_allocators_are_recognized(error: Exception, lacks: bool) -> None:
    assert lacks_memory(error) is lacks


def test_the_message_says_how_much_gpu_memory_is_in_use_and_by_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2_000_000_000, 80_000_000_000))
    for reserved, said in ((77_500_000_000, ""), (58_000_000_000, ", 20 GB of it by other processes")):
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device, reserved=reserved: reserved)
        assert _used(torch.device("cuda")) == f" (78 of 80 GB in use{said})"
    assert _used(torch.device("cpu")) == ""


def test_suggestions_pass_the_checks() -> None:
    """data.batch_size is a multiple of devices times accumulated batches, also after the change."""
    for processes in (1, 2, 3):
        for accumulated in (1, 2):
            for at_once in range(2, 41):
                batch = at_once * processes * accumulated
                for fitting in range(1, at_once // 2 + 1):
                    ways = _ways(batch, processes, accumulated, fitting)
                    size = int(re.findall(r"data\.batch_size=(\d+)", ways)[0])
                    assert size == fitting * processes * accumulated
                    for more in map(int, re.findall(r"accumulate_grad_batches=(\d+)", ways)):
                        assert batch % (more * processes) == 0
                        assert fitting // 2 < batch // (more * processes) <= fitting


# A process whose address space may grow by this much after everything is imported.
LIMITED = """
import resource, runpy, sys
from pathlib import Path
import matplotlib.figure, vitexp.runs.run
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + int(sys.argv.pop(1)), resource.RLIM_INFINITY))
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
"""
LARGE = (
    *("data.train_per_class=12", "data.test_per_class=1", "data.val_fraction=0.2"),
    *("model.dim=64", "model.patch_size=2", "trainer.precision=32-true", "callbacks=none"),
)


def limited_run(folder: Path, room: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    arguments = [*TINY, *LARGE, "logger=csv", f"log_dir={folder}", *overrides]
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(room), *arguments],
        cwd=CONF.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits address spaces this way")
def test_the_suggestion_fits_under_the_same_limit(tmp_path: Path) -> None:
    room = 700_000_000
    ended = limited_run(tmp_path, room, "data.batch_size=384")
    assert ended.returncode == 1, ended.stderr
    [sentence] = ended.stderr.strip().splitlines()
    assert sentence.startswith("vitexp: this machine has too little memory for 384 images of vit_tiny at a time; ")
    assert "perhaps" not in sentence  # measured
    [accumulated] = re.findall(r"trainer\.accumulate_grad_batches=\d+", sentence)
    [smaller] = re.findall(r"data\.batch_size=\d+", sentence)
    assert int(smaller.partition("=")[2]) >= 24  # and not overcautious: about 130 would
    for suggested in ([accumulated, "data.batch_size=384"], [smaller]):
        again = limited_run(tmp_path, room, *suggested)
        assert again.returncode == 0, again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [(0, 1), (1,)])
def test_ddp_ends_whichever_process_runs_out_of_memory(tmp_path: Path, ranks: tuple[int, ...]) -> None:
    fails = f"+callbacks.fails={{_target_: tests.failing.NoMemory, ranks: {list(ranks)}, step: 1}}"
    devices = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.log_every_n_steps=1"]
    process = subprocess.run(
        [*command(tmp_path, "callbacks=none", *devices), fails],
        cwd=CONF.parent,
        env={**os.environ, "PYTHONPATH": str(CONF.parent)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert process.returncode != 0
    assert "accumulate_grad_batches=2 processes 8 at a time" in process.stderr
