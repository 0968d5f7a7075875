"""A run on CUDA that stops within an epoch resumes: Lightning restores it before it moves the module to the device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import result
from tests.cuda.runs import options, rehearse, slow
from vitexp.training.task import Batch, Task

STATEFUL = (
    *("training.mixup_alpha=0.4", "training.image_sizes=[8,16]", "training.ema_decay=0.9"),
    *("checkpoint.every_n_steps=1", "run_id=stopped", "trainer.max_epochs=2"),
)


class Stopped(Exception):
    """The run is stopped here."""


def stopped(folder: Path, *overrides: str) -> Path:
    """Stop a run on the device in the middle of its second epoch; return its folder."""
    learn = Task.training_step

    def stop(task: Task, batch: Batch, batch_index: int) -> Tensor:
        if (task.current_epoch, batch_index) == (1, 2):
            raise Stopped
        return learn(task, batch, batch_index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "training_step", stop)
        with pytest.raises(Stopped):
            rehearse(folder, *overrides)
    [made] = folder.glob("*/*")
    assert result(made)["status"] == "failed"
    return made


@pytest.mark.parametrize("optim", [name if name == "adamw" else slow(name) for name in options("optim")])
def test_resumed_run_ends_as_if_it_had_not_stopped(tmp_path: Path, optim: str) -> None:
    given = (*STATEFUL, f"optim={optim}")
    made = stopped(tmp_path / "stopped", *given)
    again, gpu = rehearse(tmp_path / "stopped", *given, f"resume={made}")
    assert again == made
    assert gpu.steps == 2  # of 8: the others were done before
    whole, _ = rehearse(tmp_path / "whole", *given)
    torch.testing.assert_close(*(load_file(folder / "model.safetensors") for folder in (made, whole)), rtol=0, atol=0)
    assert result(made)["metrics"] == result(whole)["metrics"]
