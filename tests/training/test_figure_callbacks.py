"""What figures need from a training: values from its start, which a resumed run takes from the checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from vitexp.data.augment import BatchAugment
from vitexp.explain.drawing import draw_position
from vitexp.models import ViT
from vitexp.training.callbacks import AugmentedBatch, LearningCurves, PositionEmbedding
from vitexp.training.classification import Classifier
from vitexp.training.losses import CrossEntropy, Focal
from vitexp.training.mixing import Mixing


def tiny_module() -> Any:
    return SimpleNamespace(
        model=ViT(image_size=8, num_classes=3, patch_size=4, dim=16, depth=1, num_heads=2, init="mimetic")
    )


def at_step(step: int) -> Any:
    return SimpleNamespace(global_step=step)


def test_position_embeddings_are_compared_with_the_first_step() -> None:
    module, callback = tiny_module(), PositionEmbedding()
    callback.on_train_start(at_step(0), module)
    with torch.no_grad():
        module.model.pos_embed += 0.01
    resumed = PositionEmbedding()
    resumed.load_state_dict(callback.state_dict())
    resumed.on_train_start(at_step(5), module)  # its weights are those of the checkpoint
    [figure] = resumed.draw(at_step(5), module, images=None)  # type: ignore[arg-type]
    assert figure.texts[0].get_text() == "Position embeddings: mostly as before training"
    older = PositionEmbedding()  # a checkpoint of an older version has no state for it
    older.on_train_start(at_step(5), module)
    [figure] = older.draw(at_step(5), module, images=None)  # type: ignore[arg-type]
    assert "unknown" in figure.texts[1].get_text()


def test_one_patch_has_no_position_embedding_to_draw() -> None:
    assert draw_position(ViT(image_size=8, num_classes=3, patch_size=8, dim=16, depth=1, num_heads=2)) is None


def test_learning_rates_of_a_long_training_are_thinned_out() -> None:
    callback = LearningCurves()
    for step in range(5000):
        if step == 2500:
            callback, before = LearningCurves(), callback
            callback.load_state_dict(before.state_dict())
        trainer: Any = SimpleNamespace(
            global_step=step,
            current_epoch=step // 100,
            num_training_batches=100,
            optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1 * step}, {"lr": 1.0 * step}])],
        )
        callback.on_train_batch_start(trainer, None, None, step % 100)  # type: ignore[arg-type]
    epochs, rates = callback.history["lr"]
    assert rates == [float(step) for step in range(0, 5000, 4)], "evenly spaced, of the head"
    assert epochs == pytest.approx([step / 100 for step in range(0, 5000, 4)])


def test_what_makes_training_values_differ() -> None:
    def changes(sample_augment: Any = None, **parts: Any) -> tuple[list[str], list[str]]:
        module = Classifier(net=nn.Linear(2, 2), num_classes=2, **parts)
        trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(sample_augment=sample_augment))
        module._trainer = trainer
        return module.image_changes(), module.loss_changes()

    assert changes(loss=CrossEntropy(label_smoothing=0)) == ([], [])
    assert changes(augment=BatchAugment()) == ([], ["label smoothing 0.1"])
    mixing = Mixing(mixup_alpha=0.2, cutmix_alpha=1.0)
    assert changes(augment=nn.Dropout(), mixing=mixing)[0] == ["augmented", "mixup", "CutMix"]
    assert changes(mixing=Mixing(mixup_alpha=0.2, mix_prob=0), sample_augment=object())[0] == ["augmented"]
    assert changes(loss=Focal(class_weights=[1, 2]))[1] == ["Focal", "class weights"]


def test_an_augmented_batch_is_drawn_with_its_originals() -> None:
    images = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    flipped = images.flip(2).permute(0, 3, 1, 2) / 255
    half = torch.full((3, 1, 1), 0.5)
    module: Any = SimpleNamespace(
        training_batch=lambda batch, _: ((flipped - half) / half, batch[1]), mean=half, std=half
    )
    trainer: Any = SimpleNamespace(
        global_step=0, is_global_zero=True, datamodule=SimpleNamespace(classes=["a", "b", "c", "d", "e"])
    )
    callback = AugmentedBatch(images=2)
    callback.on_train_batch_start(trainer, module, (images, torch.arange(5)), 0)
    [figure] = callback.draw(trainer, module, images=None)  # type: ignore[arg-type]
    shown = [torch.from_numpy(axes.images[0].get_array().data) for axes in figure.axes]
    assert len(shown) == 4 and figure.axes[3].get_xlabel() == "b"
    torch.testing.assert_close(shown[:2], [images[0], images[1]])
    torch.testing.assert_close(shown[3].float(), flipped[1].permute(1, 2, 0), atol=1e-5, rtol=0)
