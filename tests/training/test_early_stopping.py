"""Early stopping counts epochs, however often they are validated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from vitexp.training.early_stopping import EarlyStopping

BATCHES = 4  # per epoch


class NeverBetter(LightningModule):
    """A model whose first validation is its best."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.validations = 0

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return (self.weight * batch[0]).sum()

    def validation_step(self, batch: list[Tensor], batch_index: int) -> None:
        self.log("val/loss", float(self.validations))
        self.validations += 1

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def steps(folder: Path, stopping: EarlyStopping, **options: Any) -> int:
    """Return the number of steps after which training stops."""
    loader = DataLoader(TensorDataset(torch.ones(BATCHES, 1)))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        **quiet,
        accelerator="cpu",
        max_epochs=20,
        callbacks=[stopping],
        default_root_dir=folder,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(NeverBetter(), loader, DataLoader(TensorDataset(torch.ones(1, 1))))
    return trainer.global_step


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({}, 1 + 3),
        ({"val_check_interval": 0.25}, 0.25 + 3),
        ({"check_val_every_n_epoch": 2}, 2 + 4),  # four is the first validated epoch after three
        ({"check_val_every_n_epoch": None, "val_check_interval": 2}, 0.5 + 3),
    ],
)
def test_patience_of_three_is_three_epochs(tmp_path: Path, options: dict[str, Any], epochs: float) -> None:
    assert steps(tmp_path, EarlyStopping("val/loss", mode="min", epochs=3), **options) == epochs * BATCHES


def test_a_checkpoint_that_counted_validations_is_resumed(tmp_path: Path) -> None:
    """After two epochs without improvement, a patience of three leaves one."""
    stopping = EarlyStopping("val/loss", mode="min", epochs=3)
    state = {**stopping.state_dict(), "wait_count": 2, "best_score": torch.tensor(-1.0), "patience": 3}
    del state["best_batch"]
    stopping.load_state_dict(state)
    assert steps(tmp_path, stopping) == 1 * BATCHES
    assert stopping.state_key == "EarlyStopping{'monitor': 'val/loss', 'mode': 'min'}"
