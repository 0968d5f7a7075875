"""The task with its defaults in a custom Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from tests.conftest import result, tiny_run
from tests.training.ranked import CLASSES, PIXELS, data
from vitexp.config.components import component
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.signs import Signs
from vitexp.models import ViT
from vitexp.training.classification import Classifier
from vitexp.training.task import Task


def plain_trainer(**arguments: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(accelerator="cpu", max_epochs=2, **quiet, **arguments)


def tiny_vit() -> ViT:
    return ViT(image_size=PIXELS, num_classes=CLASSES, patch_size=4, dim=16, depth=1, num_heads=2)


def test_six_lines_train_and_test(cache_dir: Path) -> None:
    data = ImageDataModule(
        source=Signs(train_per_class=4, test_per_class=2), batch_size=32, num_workers=0, cache_dir=cache_dir
    )
    net = ViT(image_size=32, num_classes=43, patch_size=8, dim=16, depth=1, num_heads=2)
    task, trainer = Classifier(net=net, num_classes=43), plain_trainer()
    before = net.head.weight.detach().clone()
    trainer.fit(task, data)
    [tested] = trainer.test(task, data, verbose=False)
    assert not torch.equal(before, net.head.weight)
    assert set(tested) == {f"test/{name}" for name in Classifier.metrics}
    assert len(task.predictions[1]) == 86
    assert task.mean.flatten().tolist() == data.mean.tolist(), "the normalization of the data"


class MeanColor(Task):
    """The example from Task's docstring."""

    metrics = ("loss",)
    monitor = "val/loss"
    uses_labels = False

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return (self._errors(images).mean(),)

    def measure(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return (self._errors(images),)

    def _errors(self, images: Tensor) -> Tensor:
        return (self.apply_net(images)[:, :3] - images.mean(dim=(2, 3))).square().mean(dim=1)


def test_a_custom_task_trains_in_a_custom_trainer() -> None:
    task, trainer, images = MeanColor(net=tiny_vit()), plain_trainer(), data(20)
    [before] = trainer.validate(task, images, verbose=False)
    trainer.fit(task, images)
    assert trainer.callback_metrics["val/loss"] < before["val/loss"]


def test_a_run_can_use_a_custom_task(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "~task", f"+task._target_={__name__}.MeanColor", "trainer.max_epochs=2")
    assert list(result(folder)["metrics"]["test"]) == ["loss"]
    assert {path.stem for path in (folder / "figures").iterdir()} >= {"position_embedding", "curves"}
    assert not (folder / "figures" / "confusion_matrix.png").exists(), "there are no predictions"


class MyViT(ViT):
    """A custom model."""

    def __init__(self, *, extra: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.extra = extra


def test_a_subclass_of_vit_supports_everything_a_vit_does(tmp_path: Path) -> None:
    mine = f"model._target_={__name__}.MyViT"
    pretrained = tiny_run(tmp_path / "mae", "task=mae", mine, "callbacks.reconstructions.images=2")
    folder = tiny_run(tmp_path / "tuned", mine, f"model.weights={pretrained}", "training.layer_decay=0.5")
    assert result(folder)["model"]["weights"]["taken"] > 20
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert figures >= {"attention", "position_embedding", "explanations", "faithfulness", "embedding"}


@pytest.mark.parametrize("name", ["has_blocks", "has_attention", "has_patches", "accepts_weights", "any_image_size"])
def test_a_subclass_inherits_class_attributes(name: str) -> None:
    found = component(f"{__name__}.MyViT")
    assert found is not None and found.facts[name] is True


def test_restored_sums_follow_the_module_to_its_device() -> None:
    """Lightning reads the checkpoint first and moves the module later."""
    task = Classifier(net=tiny_vit(), num_classes=CLASSES)
    task._trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    task.on_load_checkpoint({"train_sums": torch.ones(3), "global_step": 0, "val_metrics": {}})
    task.to("meta")
    task.on_train_start()
    assert task.train_sums.device.type == "meta"
