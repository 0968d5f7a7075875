"""The explanations that every run draws by default: for any network and precision, without risk to the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import TINY, composed, result, tiny_run
from vitexp.explain.explainer import Explainer
from vitexp.explain.ranking import RANDOM, measure_faithfulness
from vitexp.models.trained_net import TrainedNet

FIGURES = {"explanations", "faithfulness", "embedding"}
ONLY = ("~callbacks.confusion_matrix", "~callbacks.samples", "~callbacks.curves", "~callbacks.augmented_batch")
FEW = (*ONLY, "trainer.limit_train_batches=1", "callbacks.explanations.images=2", "callbacks.embedding.training=50")


class Flat(nn.Module):
    """A network without convolution or attention."""

    def __init__(self, *, num_classes: int, image_size: int) -> None:
        super().__init__()
        self.head = nn.Linear(3 * image_size**2, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))  # type: ignore[no-any-return]


class Brittle(Flat):
    """A network that fails on more images than a batch has."""

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 32:
            raise RuntimeError("too many")
        return super().forward(images)


def drawn(folder: Path) -> set[str]:
    assert result(folder)["status"] == "completed"
    return {path.stem for path in (folder / "figures").glob("*.png")}


def own_net(folder: Path, name: str) -> Path:
    from vitexp.runs.run import run

    few = [each for each in TINY if not each.startswith("model")]
    own = (f"model._target_={__name__}.{name}", "~callbacks.attention", "~callbacks.position_embedding")
    run(
        composed(
            *few, *FEW, "model=simple_cnn", "~model.dropout", "~model.hidden", *own, "logger=csv", f"log_dir={folder}"
        )
    )
    [made] = folder.glob("*/*")
    return made


def test_in_bf16_with_averaged_weights_over_fewer_test_images_than_asked_for(tmp_path: Path) -> None:
    averaged = ("training.ema_decay=0.5", "trainer.precision=bf16-mixed", "trainer.limit_test_batches=1")
    one_patch = ("model.patch_size=32", "~callbacks.attention", "~callbacks.position_embedding")
    assert drawn(tiny_run(tmp_path, *FEW, *averaged, *one_patch, "callbacks.explanations.measured=200")) == FIGURES


@pytest.mark.slow
def test_of_a_compiled_net(tmp_path: Path) -> None:
    assert drawn(tiny_run(tmp_path, *FEW, "trainer.compile=on")) >= FIGURES


@pytest.mark.slow
def test_of_a_net_of_ones_own(tmp_path: Path) -> None:
    assert drawn(own_net(tmp_path, "Flat")) == FIGURES


def test_of_a_net_that_does_not_stand_it(tmp_path: Path) -> None:
    made = own_net(tmp_path, "Brittle")
    assert not drawn(made) & FIGURES
    told = (made / "train.log").read_text()
    assert "cannot draw figures/explanations.png (too many); the run continues" in told
    assert "cannot draw figures/embedding.png" in told


def test_what_a_net_without_maps_can_be_asked() -> None:
    torch.manual_seed(0)
    net = Flat(num_classes=3, image_size=8)
    explainer = Explainer(
        TrainedNet(net=net, classes=["a", "b", "c"], image_size=8, mean=torch.full((3,), 0.5), std=torch.ones(3))
    )
    assert explainer.methods == ["occlusion"]
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    scores = measure_faithfulness(explainer, images, steps=1000).scores
    assert list(scores) == ["occlusion", RANDOM]  # the most faithful first
    assert scores["occlusion"] > scores[RANDOM] + 0.05
