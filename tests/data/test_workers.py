"""Scripts without a main guard: worker processes must not execute them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitexp.data.workers import needs_main

ROOT = Path(__file__).parents[2]

SCRIPT = """
import multiprocessing
multiprocessing.set_start_method("{method}")
with open("runs.txt", "a") as file:
    file.write("executed\\n")
import torch
from lightning import LightningModule, Trainer
from vitexp.data import prepare
from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.signs import Signs
from vitexp.models import SimpleCNN

prepare.CHUNK, prepare.PARALLEL_FROM = 50, 50  # so that two processes prepare the 129 training images

flip = AlbumentationsAugment(transforms=[{{"_target_": "albumentations.VerticalFlip", "p": 0.5}}])
data = ImageDataModule(
    source=Signs(train_per_class=3, test_per_class=1, draw_size=16),
    image_size=16,
    batch_size=43,
    num_workers=2,
    cache_dir="cache",
    sample_augment=flip,
)
data.setup()

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = SimpleCNN(num_classes=43, image_size=16)

    def training_step(self, batch, index):
        return self.net(batch[0].permute(0, 3, 1, 2).float() / 255).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

trainer = Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
trainer.fit(Module(), data)
assert trainer.global_step == 4
"""


@pytest.mark.parametrize("method", [pytest.param("fork", marks=pytest.mark.slow), "spawn"])
def test_a_script_without_a_main_guard_prepares_and_trains_in_processes(tmp_path: Path, method: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(method=method))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=environment, check=True, timeout=120)
    assert (tmp_path / "runs.txt").read_text() == "executed\n"


def test_objects_defined_in_a_script_stay_in_its_process() -> None:
    class Local:
        pass

    assert needs_main(Local())
    assert not needs_main(Path())
