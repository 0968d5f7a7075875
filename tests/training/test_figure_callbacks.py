"""What figures need from a training: values from its start, which a resumed run takes from the checkpoint."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from vitexp.explain.drawing import draw_position
from vitexp.models import ViT
from vitexp.training.callbacks import PositionEmbedding


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
